SELECT revision, key FROM deletions WHERE revision > ? ORDER BY revision DESC LIMIT ?;
