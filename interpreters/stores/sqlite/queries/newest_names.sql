-- The streams of the newest events, from the last on.
SELECT events.position, streams.name
FROM events CROSS JOIN streams ON streams.id = events.stream
WHERE events.position > ? ORDER BY events.position DESC LIMIT ?;
