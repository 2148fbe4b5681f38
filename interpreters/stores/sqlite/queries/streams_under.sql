-- The streams under a prefix that have events past a position: where these begin and end.
SELECT id, dropped + 1, last_seq
FROM (
    SELECT id, dropped, (SELECT max(seq) FROM events WHERE stream = streams.id) AS last_seq
    FROM streams WHERE name >= :first AND name < :end
)
WHERE last_seq > dropped
    AND (SELECT position FROM events WHERE stream = id AND seq = last_seq) > :after;
