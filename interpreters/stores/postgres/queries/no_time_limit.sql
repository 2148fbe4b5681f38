-- What rewrites a table takes as long as it takes. A lock is waited for as long as before.
SET statement_timeout = 0;
