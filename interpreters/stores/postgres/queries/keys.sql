SELECT key FROM entries WHERE key >= %s AND key < %s AND key > %s ORDER BY key LIMIT %s;
