-- The same meaning as PostgreSQL's schema, for one writer: read the reasons there.
-- Instants are microseconds since 1970, keys and digests are 16 bytes.

CREATE TABLE topics (
    -- AUTOINCREMENT: a number is never used again.
    id INTEGER CONSTRAINT topics_pkey PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL CONSTRAINT topics_name_key UNIQUE
) STRICT;

CREATE TABLE retired_topics (
    id INTEGER CONSTRAINT retired_topics_pkey PRIMARY KEY
) STRICT;

-- A rowid table, so that rows are appended; only the narrow unique index is filled at
-- random.
CREATE TABLE events (
    topic_id INTEGER NOT NULL,
    event_key BLOB NOT NULL,
    event_id TEXT NOT NULL,
    ts INTEGER NOT NULL,
    source TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    digest BLOB NOT NULL,
    -- Last, since it is the longest: what is before it is read without it.
    payload TEXT NOT NULL,
    CONSTRAINT events_pkey UNIQUE (topic_id, event_key)
) STRICT;

CREATE INDEX events_by_time ON events (topic_id, ts, event_key);

CREATE TABLE batches (
    id BLOB NOT NULL CONSTRAINT batches_pkey PRIMARY KEY,
    recorded_at INTEGER NOT NULL,
    events INTEGER NOT NULL,
    stored INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX batches_by_time ON batches (recorded_at);

-- One writer needs one slot.
CREATE TABLE counters (
    topic_id INTEGER CONSTRAINT counters_pkey PRIMARY KEY,
    received INTEGER NOT NULL,
    "unique" INTEGER NOT NULL,
    duplicates INTEGER NOT NULL,
    conflicts INTEGER NOT NULL,
    buried INTEGER NOT NULL,
    CONSTRAINT counters_balance CHECK (received = "unique" + duplicates + buried),
    CONSTRAINT counters_conflicts_are_duplicates CHECK (conflicts <= duplicates)
) STRICT;

CREATE TABLE conflicts (
    id INTEGER CONSTRAINT conflicts_pkey PRIMARY KEY AUTOINCREMENT,
    topic_id INTEGER NOT NULL,
    event_id TEXT NOT NULL,
    ts INTEGER NOT NULL,
    source TEXT NOT NULL,
    payload TEXT NOT NULL,
    received_at INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL
) STRICT;
CREATE INDEX conflicts_by_topic ON conflicts (topic_id, id);

CREATE TABLE dead_letters (
    id INTEGER CONSTRAINT dead_letters_pkey PRIMARY KEY AUTOINCREMENT,
    topic_id INTEGER NOT NULL,
    topic TEXT,
    event_id TEXT,
    reason TEXT NOT NULL,
    events INTEGER NOT NULL CONSTRAINT dead_letters_events_positive CHECK (events > 0),
    bytes BLOB NOT NULL,
    batch_id BLOB NOT NULL,
    received_at INTEGER NOT NULL,
    buried_at INTEGER NOT NULL,
    replayed_at INTEGER
) STRICT;
CREATE INDEX dead_letters_by_topic ON dead_letters (topic_id, id);
