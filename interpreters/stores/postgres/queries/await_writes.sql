-- Have those that write know that somebody listens. It is got when those have ended that did not know it.
SELECT pg_advisory_lock_shared(%s, -1);
