-- What a connection must know of a store that is there: the space of its locks, and whether ids have fallen behind.
SELECT
    (SELECT pg_namespace.oid::bigint FROM pg_namespace WHERE pg_namespace.nspname = current_schema()),
    meta.version,
    (meta.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint) << 20 <= greatest(
        newest_settled(9223372036854775807),
        meta.forgotten,
        (SELECT entries.revision FROM entries ORDER BY entries.revision DESC LIMIT 1),
        (SELECT deletions.revision FROM deletions ORDER BY deletions.revision DESC LIMIT 1)
    )
FROM meta;
