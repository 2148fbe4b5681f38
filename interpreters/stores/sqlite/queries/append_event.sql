INSERT INTO events (position, stream, seq, type, event) VALUES (?, ?, ?, ?, ?);
