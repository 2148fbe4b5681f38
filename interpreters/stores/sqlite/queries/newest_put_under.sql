SELECT ifnull(max(revision), 0) FROM entries WHERE key >= ? AND key < ?;
