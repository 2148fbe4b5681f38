-- The streams that have lost events, by name, to tell of holes.
CREATE INDEX shortened_streams ON streams (name, dropped_position, dropped) WHERE dropped > 0;
