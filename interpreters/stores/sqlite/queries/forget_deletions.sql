-- Of all deletions but the newest, only how new they are is kept.
UPDATE meta SET forgotten = max(forgotten, ifnull(
    (SELECT revision FROM deletions ORDER BY revision DESC LIMIT 1 OFFSET ?), 0));
