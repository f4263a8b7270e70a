-- One row per training, from its submission until somebody deletes it. Its checkpoints and results lie in a folder of its
-- own.
CREATE TABLE trainings (
    -- UUIDv7, 16 bytes: its order is the order of submission.
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    state            TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
    -- Name of the dataset below the folder of datasets.
    dataset          TEXT    NOT NULL,
    -- Id of the model that it becomes, if any.
    model            TEXT,
    -- Everything that decides what is trained, and how images are read, as JSON.
    recipe           TEXT    NOT NULL,
    data             TEXT    NOT NULL,
    -- Epochs of the recipe, and how many of them are done.
    total            INTEGER NOT NULL CHECK (total > 0),
    done             INTEGER NOT NULL DEFAULT 0,
    -- Measurements of the last epoch and of the best one, as JSON.
    last             TEXT,
    best             TEXT,
    -- Milliseconds since 1970-01-01 UTC.
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    -- Starts since an epoch was last done.
    attempts         INTEGER NOT NULL DEFAULT 0,
    -- Grows with every claim and never shrinks: an end counts only under the lease it came under.
    lease            INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    crashes          INTEGER NOT NULL DEFAULT 0,
    interruptions    INTEGER NOT NULL DEFAULT 0,
    -- 1 while a running training waits for the jobs that its device runs first.
    waits            INTEGER NOT NULL DEFAULT 0,
    -- What went wrong (failed), as JSON.
    problem          TEXT,
    idempotency_key  TEXT,
    fingerprint      TEXT,
    CHECK ((state IN ('succeeded', 'failed', 'canceled')) = (finished_at IS NOT NULL)),
    CHECK ((state = 'failed') = (problem IS NOT NULL))
) STRICT;

CREATE INDEX trainings_by_state ON trainings (state, id);
CREATE UNIQUE INDEX trainings_by_idempotency_key ON trainings (idempotency_key) WHERE idempotency_key IS NOT NULL;
