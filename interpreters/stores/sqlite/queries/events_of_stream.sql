SELECT event FROM events WHERE stream = ? AND seq > ? AND seq <= ? ORDER BY seq;
