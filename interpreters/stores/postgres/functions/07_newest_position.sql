-- The newest settled position of the streams whose names lie in a range. The newest events are looked at first.
CREATE OR REPLACE FUNCTION newest_position(name_from text, name_to text, after bigint, looked_at integer)
RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    below CONSTANT bigint := settled();
    found bigint;
BEGIN
    SELECT e.position INTO found
    FROM (
        SELECT e.position, e.stream FROM events e WHERE e.position > after AND e.position < below
        ORDER BY e.position DESC LIMIT looked_at
    ) AS e
    CROSS JOIN LATERAL (
        SELECT FROM streams s WHERE s.id = e.stream AND s.name >= name_from AND s.name < name_to OFFSET 0
    ) AS s
    ORDER BY e.position DESC LIMIT 1;
    IF found IS NULL THEN
        SELECT max(e.position) INTO found
        FROM streams s
        CROSS JOIN LATERAL (
            SELECT e.position FROM events e WHERE e.stream = s.id AND e.position < below ORDER BY e.seq DESC LIMIT 1
        ) AS e
        WHERE s.name >= name_from AND s.name < name_to;
    END IF;
    -- By names: OFFSET keeps this from being looked for by positions.
    RETURN greatest(found, 0, (
        SELECT max(s.dropped_position)
        FROM (
            SELECT s.dropped_position FROM streams s
            WHERE s.dropped > 0 AND s.name >= name_from AND s.name < name_to OFFSET 0
        ) AS s
        WHERE s.dropped_position < below
    ));
END
$$;
