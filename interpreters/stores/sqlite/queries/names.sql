-- SQLite looks from one lower bound on: the higher one, and not that of the prefix for each page again.
SELECT name FROM streams WHERE name >= max(:first, :after) AND name < :end AND +name > :after
ORDER BY name LIMIT :limit;
