-- One row per study, from its submission until somebody deletes it. Its runs and images lie in a folder of its own.
CREATE TABLE studies (
    -- UUIDv7, 16 bytes: its order is the order of submission.
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    state            TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
    -- Ids of the models, as JSON.
    models           TEXT    NOT NULL,
    -- Everything that decides what is run, as JSON.
    plan             TEXT    NOT NULL,
    -- Units of each layer whose images are kept.
    images           INTEGER NOT NULL,
    -- Runs of the plan, and how many of them are done.
    total            INTEGER NOT NULL CHECK (total > 0),
    done             INTEGER NOT NULL DEFAULT 0,
    -- Milliseconds since 1970-01-01 UTC.
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    -- Starts since a batch of runs was last done.
    attempts         INTEGER NOT NULL DEFAULT 0,
    -- Grows with every claim and never shrinks: an end counts only under the lease it came under.
    lease            INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    -- What went wrong (failed), as JSON.
    problem          TEXT,
    idempotency_key  TEXT,
    fingerprint      TEXT,
    CHECK ((state IN ('succeeded', 'failed', 'canceled')) = (finished_at IS NOT NULL)),
    CHECK ((state = 'failed') = (problem IS NOT NULL))
) STRICT;

CREATE INDEX studies_by_state ON studies (state, id);
CREATE UNIQUE INDEX studies_by_idempotency_key ON studies (idempotency_key) WHERE idempotency_key IS NOT NULL;
