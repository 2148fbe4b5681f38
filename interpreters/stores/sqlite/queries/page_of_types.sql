SELECT position, event FROM events
WHERE position > :after AND position <= :until AND type IN (SELECT value FROM json_each(:types))
ORDER BY position LIMIT :limit;
