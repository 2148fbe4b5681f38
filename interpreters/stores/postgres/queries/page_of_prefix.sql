-- The first events of the streams under a prefix in a range of positions, after a row of the store: its head, and the first
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
SELECT e.position, e.name, e.seq, e.type, e.at, e.data, e.meta, e.noted
FROM newest CROSS JOIN LATERAL events_under(
    %(name_from)s, %(name_to)s, %(after)s, least(%(until)s, newest.head), %(limit)s, %(types)s::text[], false
) AS e;
