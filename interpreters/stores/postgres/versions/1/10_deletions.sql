-- The keys that were deleted last, for those who wait for a change.
CREATE TABLE deletions (
    revision bigint PRIMARY KEY,
    key text COLLATE "C" NOT NULL
);
