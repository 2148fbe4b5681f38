SELECT revision, value, noted FROM entries WHERE key = %s;
