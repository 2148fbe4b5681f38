SELECT revision, value FROM entries WHERE key = ?;
