-- The log. Times are microseconds since 1970, UTC; data and meta are msgpack; the view `log` shows them as jsonb.
CREATE TABLE events (
    position bigint PRIMARY KEY,
    stream bigint NOT NULL,
    seq bigint NOT NULL,
    type text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    data bytea NOT NULL,
    meta bytea,
    -- The numbers of the answers that stand in meta, which were known only when it was written.
    noted bigint[]
);
