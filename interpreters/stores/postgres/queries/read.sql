-- The first events of a stream in a range, with what there is of the stream.
WITH stream AS MATERIALIZED (
    SELECT
        streams.id,
        streams.dropped,
        coalesce((SELECT events.seq FROM events WHERE events.stream = streams.id ORDER BY events.seq DESC LIMIT 1), dropped)
            AS head
    FROM streams WHERE streams.name = %(stream)s
)
SELECT stream.dropped, stream.head, e.position, e.seq, e.type, e.at, e.data, e.meta, e.noted
FROM stream LEFT JOIN LATERAL (
    SELECT * FROM events
    WHERE events.stream = stream.id AND events.seq > %(after)s AND events.seq <= %(until)s
    ORDER BY events.seq LIMIT %(limit)s
) AS e ON true
ORDER BY e.seq;
