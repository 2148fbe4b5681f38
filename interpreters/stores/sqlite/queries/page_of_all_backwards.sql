SELECT position, event FROM events WHERE position > ? AND position <= ? ORDER BY position DESC LIMIT ?;
