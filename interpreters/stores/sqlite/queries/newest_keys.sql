-- The keys that were put last, from the last on.
SELECT revision, key FROM entries WHERE revision > ? ORDER BY revision DESC LIMIT ?;
