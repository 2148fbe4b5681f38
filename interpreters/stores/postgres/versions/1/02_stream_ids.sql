-- By which numbers streams are known to their events.
CREATE SEQUENCE stream_ids;
