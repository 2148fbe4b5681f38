SELECT events.position, streams.name, events.type, events.event
FROM events CROSS JOIN streams ON streams.id = events.stream
WHERE events.position > ? AND events.position <= ? ORDER BY events.position DESC LIMIT ?;
