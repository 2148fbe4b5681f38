INSERT OR REPLACE INTO entries (revision, key, value) VALUES (?, ?, ?);
