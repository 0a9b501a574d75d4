-- Topics are interned: a number is a fifth of a name's size in every row and index.
CREATE TABLE topics (
    -- Never used again after its topic is deleted, so that rows which wait for removal
    -- can't come back under another name. 0 is kept free for "no topic".
    id int4 GENERATED ALWAYS AS IDENTITY CONSTRAINT topics_pkey PRIMARY KEY,
    -- Compared byte by byte: a linguistic collation costs a fifth of the throughput.
    name text COLLATE "C" NOT NULL CONSTRAINT topics_name_key UNIQUE
);

-- Raised whenever a topic is deleted; a writer whose numbers are older rereads them.
CREATE TABLE topics_epoch (
    one bool DEFAULT true CONSTRAINT topics_epoch_pkey PRIMARY KEY
        CONSTRAINT topics_epoch_one_row CHECK (one),
    epoch int8 NOT NULL
);
INSERT INTO topics_epoch (epoch) VALUES (0);

-- Deleted topics whose events are still to be removed.
CREATE TABLE retired_topics (
    id int4 CONSTRAINT retired_topics_pkey PRIMARY KEY
);

CREATE TABLE events (
    topic_id int4 NOT NULL,
    -- The event id in 16 bytes: see `event::Key`.
    event_key uuid NOT NULL,
    -- In full, since two ids could have one key; compared, never indexed.
    event_id text NOT NULL,
    ts timestamptz NOT NULL,
    source text NOT NULL,
    -- When a gateway took it.
    received_at timestamptz NOT NULL,
    -- json rather than jsonb: it keeps the text as sent (big integers, the order of
    -- members, \u0000) and costs a third less.
    payload json NOT NULL,
    -- The content in 16 bytes, to tell a resend from a conflict: see `event::Digest`.
    digest uuid NOT NULL,
    -- The promise.
    CONSTRAINT events_pkey PRIMARY KEY (topic_id, event_key)
);

-- Newest first within a topic. The key makes the order total, so that a page of events
-- with equal timestamps ends at a place that can be found again.
CREATE INDEX events_by_time ON events (topic_id, ts, event_key);

-- The identity of every batch that was recorded, whatever way it came.
CREATE TABLE batches (
    id uuid CONSTRAINT batches_pkey PRIMARY KEY,
    recorded_at timestamptz NOT NULL,
    events int8 NOT NULL,
    stored int8 NOT NULL
);

-- For the rates of the last minute and for forgetting what is old. Rows arrive in its
-- order, so it grows at one end.
CREATE INDEX batches_by_time ON batches (recorded_at);

-- The books. Each writer adds to a slot of its own, so that nobody waits for a counter.
CREATE TABLE counters (
    slot int2 NOT NULL CONSTRAINT counters_slot_range CHECK (slot BETWEEN 0 AND 15),
    -- 0 for what has no topic.
    topic_id int4 NOT NULL,
    received int8 NOT NULL,
    "unique" int8 NOT NULL,
    duplicates int8 NOT NULL,
    conflicts int8 NOT NULL,
    buried int8 NOT NULL,
    CONSTRAINT counters_pkey PRIMARY KEY (slot, topic_id),
    CONSTRAINT counters_balance CHECK (received = "unique" + duplicates + buried),
    CONSTRAINT counters_conflicts_are_duplicates CHECK (conflicts <= duplicates)
    -- Room for the next version of a row in the same page: no index is touched.
) WITH (fillfactor = 50);

-- Events that lost against other content under the same key.
CREATE TABLE conflicts (
    id int8 GENERATED ALWAYS AS IDENTITY CONSTRAINT conflicts_pkey PRIMARY KEY,
    topic_id int4 NOT NULL,
    event_id text NOT NULL,
    ts timestamptz NOT NULL,
    source text NOT NULL,
    -- text rather than json: nothing but the insert into events parses a payload, and
    -- this one lost before it got there.
    payload text NOT NULL,
    received_at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL
);
CREATE INDEX conflicts_by_topic ON conflicts (topic_id, id);

-- What can never be stored.
CREATE TABLE dead_letters (
    id int8 GENERATED ALWAYS AS IDENTITY CONSTRAINT dead_letters_pkey PRIMARY KEY,
    -- 0 where there is none, or the limit on topics left no room for it.
    topic_id int4 NOT NULL,
    topic text,
    event_id text,
    reason text NOT NULL,
    -- How many events it stands for in the books.
    events int8 NOT NULL CONSTRAINT dead_letters_events_positive CHECK (events > 0),
    -- In the queue's encoding: see `event::batch`.
    bytes bytea NOT NULL,
    batch_id uuid NOT NULL,
    received_at timestamptz NOT NULL,
    buried_at timestamptz NOT NULL,
    replayed_at timestamptz
);
CREATE INDEX dead_letters_by_topic ON dead_letters (topic_id, id);
