-- The newest position under a prefix of events that are gone.
SELECT ifnull(max(dropped_position), 0) FROM streams WHERE dropped > 0 AND name >= ? AND name < ?;
