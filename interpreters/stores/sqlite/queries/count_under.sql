-- How many streams are under a prefix, if not more than enough.
SELECT count(*) FROM (SELECT 1 FROM streams WHERE name >= ? AND name < ? LIMIT ?);
