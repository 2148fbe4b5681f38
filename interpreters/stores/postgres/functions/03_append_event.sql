-- Append one event, unless another sequence number is expected than is there; then there is no position.
CREATE OR REPLACE FUNCTION append_event(
    space integer,
    bucket integer,
    stream_name text,
    expected bigint,
    event_type text,
    event_at bigint,
    event_data bytea,
    event_meta bytea,
    OUT actual bigint,
    OUT given bigint,
    -- Whether somebody may listen for it.
    OUT is_awaited boolean
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    id_offset bigint;
    stream_id bigint;
BEGIN
    -- First the lock and then an id: so those of a stream's transactions grow as its sequence numbers do.
    PERFORM pg_advisory_xact_lock(space, bucket);
    SELECT
        s.id,
        coalesce((SELECT e.seq FROM events e WHERE e.stream = s.id ORDER BY e.seq DESC LIMIT 1), s.dropped),
        (SELECT m.xid_offset FROM meta m)
    INTO stream_id, actual, id_offset
    FROM streams s WHERE s.name = stream_name;
    actual := coalesce(actual, 0);
    IF expected <> actual THEN
        RETURN;
    END IF;
    IF stream_id IS NULL THEN
        SELECT m.xid_offset INTO id_offset FROM meta m;
        stream_id := nextval('stream_ids');
        INSERT INTO streams (id, name) VALUES (stream_id, stream_name);
    END IF;
    is_awaited := NOT pg_try_advisory_xact_lock(space, -1);
    given := ((pg_current_xact_id()::text::bigint + id_offset) << 20) + 1;
    INSERT INTO events (position, stream, seq, type, at, data, meta)
    VALUES (given, stream_id, actual + 1, event_type, event_at, event_data, event_meta);
END
$$;
