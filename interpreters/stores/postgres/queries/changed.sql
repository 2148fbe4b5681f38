-- What was settled since: streams and keys, with the newest number of each; how far that goes; and the newest of all.
WITH below AS MATERIALIZED (SELECT settled() AS number)
SELECT 'stream', streams.name, max(e.position)
FROM below CROSS JOIN LATERAL (
    SELECT events.stream, events.position FROM events
    WHERE events.position > %(after)s AND events.position < below.number
) AS e
JOIN streams ON streams.id = e.stream GROUP BY streams.name
UNION ALL
SELECT 'key', c.key, max(c.revision)
FROM below CROSS JOIN LATERAL (
    SELECT entries.key, entries.revision FROM entries
    WHERE entries.revision > %(after)s AND entries.revision < below.number
    UNION ALL
    SELECT deletions.key, deletions.revision FROM deletions
    WHERE deletions.revision > %(after)s AND deletions.revision < below.number
) AS c GROUP BY c.key
UNION ALL
SELECT 'settled', '', below.number FROM below
UNION ALL
SELECT 'newest', '', greatest(
    newest_settled(9223372036854775807),
    (SELECT entries.revision FROM entries ORDER BY entries.revision DESC LIMIT 1),
    (SELECT deletions.revision FROM deletions ORDER BY deletions.revision DESC LIMIT 1)
);
