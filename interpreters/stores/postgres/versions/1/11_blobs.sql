-- Bytes by their content identifier.
CREATE TABLE blobs (
    cid text COLLATE "C" PRIMARY KEY,
    data bytea NOT NULL
);
