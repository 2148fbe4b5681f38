-- The newest position of the streams under a prefix.
SELECT ifnull(max(max(dropped_position, ifnull(
    (SELECT position FROM events WHERE stream = streams.id ORDER BY seq DESC LIMIT 1), 0))), 0)
FROM streams WHERE name >= ? AND name < ?;
