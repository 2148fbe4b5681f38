-- The events of the streams whose names lie in a range, in the order of the log, or backwards; not more than so many.
--
-- Streams are merged. Where many match, the log is looked at for a while first, so that no distribution of events makes
-- this look at all of it: at about as many places as the merging would cost. Whether they are enough for that is asked
-- only where the first look has not found all that is wanted.
CREATE OR REPLACE FUNCTION events_under(
    name_from text, name_to text, after bigint, until bigint, wanted integer, types text[], is_backwards boolean
) RETURNS TABLE (
    "position" bigint, name text, seq bigint, type text, at bigint, data bytea, meta bytea, noted bigint[]
) LANGUAGE plpgsql STABLE AS $$
#variable_conflict use_column
DECLARE
    few constant integer := 64;
    places bigint := wanted;
    looked_at bigint := 0;
    block bigint;
    found bigint;
    edge bigint;
    given bigint := 0;
    last_given bigint;
BEGIN
    SELECT count(*) INTO found
    FROM (SELECT FROM streams s WHERE s.name >= name_from AND s.name < name_to LIMIT few + 1) AS under;
    WHILE found > few AND looked_at < places LOOP
        block := least(places - looked_at, greatest(looked_at, wanted));
        IF is_backwards THEN
            SELECT count(*), min(e.position) INTO found, edge FROM (
                SELECT e.position FROM events e WHERE e.position > after AND e.position <= until
                ORDER BY e.position DESC LIMIT block
            ) AS e;
        ELSE
            SELECT count(*), max(e.position) INTO found, edge FROM (
                SELECT e.position FROM events e WHERE e.position > after AND e.position <= until
                ORDER BY e.position LIMIT block
            ) AS e;
        END IF;
        RETURN QUERY
            SELECT e.position, s.name, e.seq, e.type, e.at, e.data, e.meta, e.noted
            FROM events e CROSS JOIN LATERAL (
                SELECT s.name FROM streams s WHERE s.id = e.stream AND s.name >= name_from AND s.name < name_to OFFSET 0
            ) AS s
            WHERE e.position > CASE WHEN is_backwards THEN edge - 1 ELSE after END
                AND e.position <= CASE WHEN is_backwards THEN until ELSE edge END
                AND (types IS NULL OR e.type = ANY (types))
            ORDER BY CASE WHEN is_backwards THEN -e.position ELSE e.position END LIMIT wanted - given;
        GET DIAGNOSTICS last_given = ROW_COUNT;
        given := given + last_given;
        IF given >= wanted OR found < block THEN
            RETURN;
        END IF;
        -- From there on.
        IF is_backwards THEN
            until := edge - 1;
        ELSE
            after := edge;
        END IF;
        looked_at := looked_at + block;
        IF looked_at = wanted THEN
            SELECT sqrt(2 * wanted::float8 * s.id)::bigint INTO places FROM streams s ORDER BY s.id DESC LIMIT 1;
            SELECT count(*) INTO found
            FROM (SELECT FROM streams s WHERE s.name >= name_from AND s.name < name_to LIMIT places + 1) AS under;
            EXIT WHEN found <= places;
        END IF;
        found := few + 1;
    END LOOP;
    IF is_backwards THEN
        RETURN QUERY
            SELECT e.position, s.name, e.seq, e.type, e.at, e.data, e.meta, e.noted
            FROM streams s
            CROSS JOIN LATERAL (
                SELECT last.seq, last.position FROM events last WHERE last.stream = s.id ORDER BY last.seq DESC LIMIT 1
            ) AS last
            CROSS JOIN LATERAL (
                SELECT e.* FROM events e
                WHERE e.stream = s.id AND e.position > after AND (types IS NULL OR e.type = ANY (types))
                    AND e.seq < CASE
                        WHEN last.position <= until THEN last.seq + 1
                        ELSE first_after(s.id, s.dropped + 1, last.seq, until)
                    END
                ORDER BY e.seq DESC LIMIT wanted - given
            ) AS e
            WHERE s.name >= name_from AND s.name < name_to AND last.position > after
            ORDER BY e.position DESC LIMIT wanted - given;
    ELSE
        RETURN QUERY
            SELECT e.position, s.name, e.seq, e.type, e.at, e.data, e.meta, e.noted
            FROM streams s
            CROSS JOIN LATERAL (
                SELECT last.seq, last.position FROM events last WHERE last.stream = s.id ORDER BY last.seq DESC LIMIT 1
            ) AS last
            CROSS JOIN LATERAL (
                SELECT e.* FROM events e
                WHERE e.stream = s.id AND e.position <= until AND (types IS NULL OR e.type = ANY (types))
                    AND e.seq >= first_after(s.id, s.dropped + 1, last.seq, after)
                ORDER BY e.seq LIMIT wanted - given
            ) AS e
            WHERE s.name >= name_from AND s.name < name_to AND last.position > after
            ORDER BY e.position LIMIT wanted - given;
    END IF;
END
$$;
