-- The position of the newest event that can be read by all, be it gone by now; or what all from now on are above.
CREATE OR REPLACE FUNCTION newest_settled(below bigint) RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN greatest(
        (SELECT events.position FROM events WHERE events.position < below ORDER BY events.position DESC LIMIT 1),
        (
            SELECT streams.dropped_position FROM streams
            WHERE streams.dropped > 0 AND streams.dropped_position < below
            ORDER BY streams.dropped_position DESC LIMIT 1
        ),
        (SELECT meta.above FROM meta WHERE meta.above < below),
        0
    );
END
$$;
