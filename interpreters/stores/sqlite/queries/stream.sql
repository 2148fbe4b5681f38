-- A stream by its name: what it has lost, and its last event.
SELECT
    id,
    dropped,
    dropped_position,
    max(dropped, ifnull((SELECT max(seq) FROM events WHERE stream = streams.id), 0))
FROM streams WHERE name = ?;
