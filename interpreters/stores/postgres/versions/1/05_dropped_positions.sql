-- The streams that have lost events, by what they lost last.
CREATE INDEX dropped_positions ON streams (dropped_position) WHERE dropped > 0;
