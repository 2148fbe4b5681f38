SELECT name FROM streams WHERE name >= ?1 AND name < ?2 AND name > ?3 ORDER BY name LIMIT ?4;
