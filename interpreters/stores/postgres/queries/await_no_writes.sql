SELECT pg_advisory_unlock_shared(%s, -1);
