-- What the planner knows of values came from the tables, and its old rows have what was in them.
VACUUM (FULL, ANALYZE) pg_catalog.pg_statistic;
