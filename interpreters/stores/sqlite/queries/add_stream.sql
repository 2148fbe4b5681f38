INSERT INTO streams (name, dropped, dropped_position) VALUES (?, ?, ?);
