-- The newest events of all streams in a range of positions, backwards, with what there is of the store.
WITH newest AS MATERIALIZED (SELECT newest_settled(settled()) AS head)
SELECT newest.head, hole.name, hole.dropped, e.name, e.seq, e.type, e.at, e.data, e.position, e.meta, e.noted
FROM newest
LEFT JOIN LATERAL (
    SELECT streams.name, streams.dropped FROM streams
    WHERE streams.dropped > 0 AND streams.name >= %(name_from)s AND streams.name < %(name_to)s
        AND streams.dropped_position > %(after)s
    ORDER BY streams.name LIMIT 1
) AS hole ON true
LEFT JOIN LATERAL (
    SELECT events.position, names.name, events.seq, events.type, events.at, events.data, events.meta, events.noted
    FROM (
        SELECT * FROM events
        WHERE events.position > %(after)s AND events.position <= least(%(until)s, newest.head)
        ORDER BY events.position DESC LIMIT %(limit)s
    ) AS events CROSS JOIN LATERAL (SELECT streams.name FROM streams WHERE streams.id = events.stream OFFSET 0) AS names
) AS e ON true
ORDER BY e.position DESC;
