SELECT position, event FROM events WHERE position > :after AND position <= :until ORDER BY position LIMIT :limit;
