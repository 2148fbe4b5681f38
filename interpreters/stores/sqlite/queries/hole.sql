-- The first stream under a prefix that has lost an event past a position.
SELECT name, dropped FROM streams
WHERE dropped > 0 AND name >= ? AND name < ? AND dropped_position > ? ORDER BY name LIMIT 1;
