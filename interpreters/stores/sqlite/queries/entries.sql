-- SQLite looks from one lower bound on: the higher one, and not that of the prefix for each page again.
SELECT key, value, revision FROM entries WHERE key >= max(?1, ?3) AND key < ?2 AND +key > ?3 ORDER BY key LIMIT ?4;
