-- The events of a stream by their sequence numbers.
CREATE UNIQUE INDEX events_of_streams ON events (stream, seq);
