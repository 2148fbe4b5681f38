SELECT revision FROM entries WHERE key = %s;
