-- How often the process died while this job or study was on a device, and how often it was the only one there.
ALTER TABLE jobs ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
ALTER TABLE studies ADD COLUMN crashes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE studies ADD COLUMN interruptions INTEGER NOT NULL DEFAULT 0;
-- 1 while a running study waits for the jobs that its device runs first.
ALTER TABLE studies ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;

-- One row that is written to find out whether the database can be written.
CREATE TABLE write_check (
    id INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    at INTEGER NOT NULL
) STRICT;
INSERT INTO write_check (id, at) VALUES (1, 0);
