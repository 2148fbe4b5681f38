-- The next rows of a stream.
SELECT seq, position, type, event FROM events WHERE stream = ? AND seq >= ? ORDER BY seq LIMIT ?;
