-- Below this no position and no revision can appear any more. A transaction that is in flight has one at or above it.
-- In PL/pgSQL, as the next one, whose plans are kept: those of a function in SQL are made anew at each call.
CREATE OR REPLACE FUNCTION settled() RETURNS bigint LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + (SELECT meta.xid_offset FROM meta)) << 20;
END
$$;
