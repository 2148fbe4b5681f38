-- Keys and values as people read them.
CREATE OR REPLACE VIEW keys AS
SELECT entries.key, msgpack_to_jsonb(entries.value) AS value, entries.noted, entries.revision FROM entries;
