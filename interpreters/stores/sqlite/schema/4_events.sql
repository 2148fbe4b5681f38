-- The log. An event is encoded whole; its type stands beside it too, to be asked for.
CREATE TABLE events (
    position INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    type TEXT NOT NULL,
    event BLOB NOT NULL
);
