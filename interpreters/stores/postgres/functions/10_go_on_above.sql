-- See to it that all positions and revisions from now on are above what there is, also where the tables were restored
-- in a cluster whose transactions have lower ids; and above the one that is given.
CREATE OR REPLACE FUNCTION go_on_above(number bigint) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    newest bigint;
    next_id bigint;
BEGIN
    SELECT greatest(
        number,
        (SELECT max(e.position) FROM events e),
        (SELECT max(s.dropped_position) FROM streams s WHERE s.dropped > 0),
        (SELECT max(e.revision) FROM entries e),
        (SELECT max(d.revision) FROM deletions d),
        (SELECT m.forgotten FROM meta m)
    ) INTO newest;
    next_id := pg_snapshot_xmax(pg_current_snapshot())::text::bigint;
    -- In flight may be who has one of the last ids; who is writing has given no position that is not counted here.
    UPDATE meta SET above = number WHERE number > above;
    UPDATE meta SET xid_offset = (newest >> 20) + 1 - next_id WHERE (newest >> 20) >= next_id + xid_offset;
END
$$;
