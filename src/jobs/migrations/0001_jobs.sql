-- One row per job, from its submission until somebody deletes it.
CREATE TABLE jobs (
    -- UUIDv7, 16 bytes: its order is the order of submission.
    id               BLOB    NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    state            TEXT    NOT NULL CHECK (state IN ('queued', 'running', 'succeeded', 'failed', 'canceled')),
    model            TEXT    NOT NULL,
    model_digest     TEXT    NOT NULL,
    -- SHA-256: queued jobs with equal keys may share a batch.
    batch_key        BLOB    NOT NULL,
    -- Number of stimuli asked for.
    size             INTEGER NOT NULL CHECK (size > 0),
    -- Objectives, settings and seed, as JSON.
    request          TEXT    NOT NULL,
    -- Milliseconds since 1970-01-01 UTC.
    created_at       INTEGER NOT NULL,
    started_at       INTEGER,
    finished_at      INTEGER,
    attempts         INTEGER NOT NULL DEFAULT 0,
    -- Grows with every claim and never shrinks: a result counts only under the lease it was made under.
    lease            INTEGER NOT NULL DEFAULT 0,
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    -- Steps done, once the job has ended.
    step             INTEGER NOT NULL DEFAULT 0,
    -- What was found (succeeded) or what went wrong (failed), as JSON.
    stimuli          TEXT,
    problem          TEXT,
    idempotency_key  TEXT,
    fingerprint      TEXT,
    CHECK ((state IN ('succeeded', 'failed', 'canceled')) = (finished_at IS NOT NULL)),
    CHECK ((state = 'succeeded') = (stimuli IS NOT NULL)),
    CHECK ((state = 'failed') = (problem IS NOT NULL))
) STRICT;

CREATE INDEX jobs_by_state ON jobs (state, id);
CREATE INDEX jobs_by_model ON jobs (model, id);
CREATE INDEX jobs_queued_by_batch_key ON jobs (batch_key, id) WHERE state = 'queued';
CREATE UNIQUE INDEX jobs_by_idempotency_key ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL;

-- Deleted jobs whose PNGs may still lie in the object store.
CREATE TABLE leftovers (
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16)
) STRICT, WITHOUT ROWID;
