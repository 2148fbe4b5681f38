-- The first sequence number, from one to another, of a stream's events past a position; one more than the last: none.
CREATE OR REPLACE FUNCTION first_after(stream_id bigint, first_seq bigint, last_seq bigint, after bigint)
RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := first_seq;
    high bigint := last_seq + 1;
    middle bigint;
    found bigint;
BEGIN
    WHILE low < high LOOP
        middle := low + (high - low) / 2;
        SELECT e.position INTO found FROM events e WHERE e.stream = stream_id AND e.seq = middle;
        IF found > after THEN
            high := middle;
        ELSE
            low := middle + 1;
        END IF;
    END LOOP;
    RETURN low;
END
$$;
