-- Keys and values. By revision, so that what was changed last is found first.
CREATE TABLE entries (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE COLLATE BINARY,
    value BLOB NOT NULL
);
