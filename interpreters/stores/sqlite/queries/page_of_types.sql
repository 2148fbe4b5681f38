SELECT position, event FROM events
WHERE position > ?1 AND position <= ?2 AND type IN (SELECT value FROM json_each(?4)) ORDER BY position LIMIT ?3;
