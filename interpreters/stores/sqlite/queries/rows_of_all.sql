-- So many rows of the log, with the names of their streams.
SELECT events.position, streams.name, events.type, events.event
FROM events CROSS JOIN streams ON streams.id = events.stream
WHERE events.position > ? AND events.position <= ? ORDER BY events.position LIMIT ?;
