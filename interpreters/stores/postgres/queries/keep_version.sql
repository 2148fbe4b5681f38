-- The version of the tables; the first time, all that is known of the store.
INSERT INTO meta (version, xid_offset, forgotten) VALUES (%s, 0, 0)
ON CONFLICT (id) DO UPDATE SET version = excluded.version;
