-- What is known of the store itself: one row.
CREATE TABLE meta (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    -- Positions up to this one were given, though no event may have it any more.
    position INTEGER NOT NULL,
    -- Likewise revisions.
    revision INTEGER NOT NULL,
    -- Of deletions up to this revision it is not known which keys they were of.
    forgotten INTEGER NOT NULL
);
