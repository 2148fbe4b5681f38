-- SQLite looks from one lower bound on: the higher one, and not that of the prefix for each page again.
SELECT name FROM streams WHERE name >= max(?1, ?3) AND name < ?2 AND +name > ?3 ORDER BY name LIMIT ?4;
