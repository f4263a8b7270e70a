-- Images that clients brought with their jobs, as they were fitted to the stimuli; they go with the job.
CREATE TABLE images (
    job    BLOB NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    -- Of the PNG, lower-case hexadecimal.
    sha256 TEXT NOT NULL CHECK (length(sha256) = 64),
    png    BLOB NOT NULL,
    PRIMARY KEY (job, sha256)
) STRICT;
