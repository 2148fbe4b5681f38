SELECT seq, position, type, event FROM events WHERE stream = ? AND seq <= ? ORDER BY seq DESC LIMIT ?;
