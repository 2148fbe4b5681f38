-- The keys that were deleted last, for those who wait for a change.
CREATE TABLE deletions (
    revision INTEGER PRIMARY KEY,
    key TEXT NOT NULL COLLATE BINARY
);
