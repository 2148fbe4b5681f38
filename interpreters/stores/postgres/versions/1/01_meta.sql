-- What is known of the store itself: one row.
CREATE TABLE meta (
    id boolean PRIMARY KEY DEFAULT true CHECK (id),
    -- The version of these tables and functions.
    version integer NOT NULL,
    -- What is added to a transaction's id, so that positions and revisions go on above those of a cluster before.
    xid_offset bigint NOT NULL,
    -- What all positions and revisions are above that were given since somebody asked for that.
    above bigint NOT NULL DEFAULT 0,
    -- Of deletions up to this revision it is not known which keys they were of.
    forgotten bigint NOT NULL
);
