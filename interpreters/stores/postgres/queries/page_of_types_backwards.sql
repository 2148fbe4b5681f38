-- The newest events of some types in a range of positions, backwards, after a row of the store: its head, and the first
-- stream that has lost an event past where the range begins, with what it has lost.
WITH newest AS MATERIALIZED (SELECT newest_settled(settled()) AS head)
SELECT newest.head, hole.name, hole.dropped, NULL, NULL, NULL, NULL, NULL
FROM newest LEFT JOIN LATERAL (
    SELECT streams.name, streams.dropped FROM streams
    WHERE streams.dropped > 0 AND streams.name >= %(name_from)s AND streams.name < %(name_to)s
        AND streams.dropped_position > %(after)s
    ORDER BY streams.name LIMIT 1
) AS hole ON true
UNION ALL
(
    SELECT events.position, streams.name, events.seq, events.type, events.at, events.data, events.meta, events.noted
    FROM events JOIN streams ON streams.id = events.stream
    WHERE events.position > %(after)s AND events.position <= (SELECT least(%(until)s, newest.head) FROM newest)
        AND events.type = ANY (%(types)s::text[])
    ORDER BY events.position DESC LIMIT %(limit)s
);
