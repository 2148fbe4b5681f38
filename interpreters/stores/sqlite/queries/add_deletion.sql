INSERT INTO deletions (revision, key) VALUES (?, ?);
