-- The log as people read it.
CREATE OR REPLACE VIEW log AS
SELECT
    streams.name AS stream,
    events.seq,
    events.type,
    to_timestamp(events.at / 1e6) AS at,
    msgpack_to_jsonb(events.data) AS data,
    msgpack_to_jsonb(events.meta) AS meta,
    events.noted,
    events.position
FROM events JOIN streams ON streams.id = events.stream;
