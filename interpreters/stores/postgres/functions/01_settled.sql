-- Below this no position and no revision can appear any more. A transaction that is in flight has one at or above it.
CREATE OR REPLACE FUNCTION settled() RETURNS bigint LANGUAGE sql STABLE
RETURN (pg_snapshot_xmin(pg_current_snapshot())::text::bigint + (SELECT meta.xid_offset FROM meta)) << 20;
