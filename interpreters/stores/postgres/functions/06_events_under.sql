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
    few constant integer := 4;
    places bigint := 0;
    looked_at bigint := 0;
    block bigint;
    newest bigint;
    oldest bigint;
    seen bigint;
    given bigint := 0;
    found bigint;
BEGIN
    IF (
        SELECT count(*) > few
        FROM (SELECT FROM streams s WHERE s.name >= name_from AND s.name < name_to LIMIT few + 1) AS under
    ) THEN
        places := wanted;
    END IF;
    WHILE looked_at < places LOOP
        block := least(places - looked_at, greatest(looked_at, wanted));
        IF is_backwards THEN
            newest := until;
            SELECT count(*), min(e.position) - 1 INTO seen, oldest FROM (
                SELECT e.position FROM events e WHERE e.position > after AND e.position <= until
                ORDER BY e.position DESC LIMIT block
            ) AS e;
        ELSE
            oldest := after;
            SELECT count(*), max(e.position) INTO seen, newest FROM (
                SELECT e.position FROM events e WHERE e.position > after AND e.position <= until
                ORDER BY e.position LIMIT block
            ) AS e;
        END IF;
        RETURN QUERY
            SELECT e.position, s.name, e.seq, e.type, e.at, e.data, e.meta, e.noted
            FROM events e CROSS JOIN LATERAL (
                SELECT s.name FROM streams s WHERE s.id = e.stream AND s.name >= name_from AND s.name < name_to OFFSET 0
            ) AS s
            WHERE e.position > oldest AND e.position <= newest AND (types IS NULL OR e.type = ANY (types))
            ORDER BY CASE WHEN is_backwards THEN -e.position ELSE e.position END LIMIT wanted - given;
        GET DIAGNOSTICS found = ROW_COUNT;
        given := given + found;
        IF given >= wanted OR seen < block THEN
            RETURN;
        END IF;
        -- From there on.
        IF is_backwards THEN
            until := oldest;
        ELSE
            after := newest;
        END IF;
        IF looked_at = 0 THEN
            SELECT sqrt(2 * wanted::float8 * s.id)::bigint INTO places FROM streams s ORDER BY s.id DESC LIMIT 1;
            SELECT CASE WHEN count(*) > places THEN places ELSE 0 END INTO places
            FROM (SELECT FROM streams s WHERE s.name >= name_from AND s.name < name_to LIMIT places + 1) AS under;
        END IF;
        looked_at := looked_at + block;
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
