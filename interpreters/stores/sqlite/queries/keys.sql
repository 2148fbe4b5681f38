-- SQLite looks from one lower bound on: the higher one, and not that of the prefix for each page again.
SELECT key FROM entries WHERE key >= max(:first, :after) AND key < :end AND +key > :after
ORDER BY key LIMIT :limit;
