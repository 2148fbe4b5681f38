DELETE FROM entries WHERE key = ?;
