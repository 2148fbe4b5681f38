-- Every stream that was ever used. What truncation left of one is in `events`; the numbers here are of what it took.
CREATE TABLE streams (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE BINARY,
    -- The events through this sequence number are gone; the last of them had that position.
    dropped INTEGER NOT NULL,
    dropped_position INTEGER NOT NULL
);
