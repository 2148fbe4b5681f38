SELECT coalesce((SELECT events.seq FROM events WHERE events.stream = streams.id ORDER BY events.seq DESC LIMIT 1), dropped)
FROM streams WHERE streams.name = %s;
