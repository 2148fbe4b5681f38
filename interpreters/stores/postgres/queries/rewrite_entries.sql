-- Write the table anew, with its indexes, and say how many deleted rows had to be kept.
VACUUM (FULL, VERBOSE, ANALYZE) entries;
