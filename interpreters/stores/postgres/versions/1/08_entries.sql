-- Keys and values, which are msgpack; the view `keys` shows them as jsonb.
CREATE TABLE entries (
    key text COLLATE "C" PRIMARY KEY,
    revision bigint NOT NULL,
    value bytea NOT NULL,
    -- The numbers of the answers that stand in the value, which were known only when it was written.
    noted bigint[]
);
