-- Every stream that was ever used. What truncation left of one is in `events`; the numbers here are of what it took.
CREATE TABLE streams (
    id bigint PRIMARY KEY DEFAULT nextval('stream_ids'),
    name text COLLATE "C" NOT NULL UNIQUE,
    -- The events through this sequence number are gone; the last of them had that position.
    dropped bigint NOT NULL DEFAULT 0,
    dropped_position bigint NOT NULL DEFAULT 0
);
