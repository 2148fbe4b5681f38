-- How many bytes each table takes, with its indexes and what is kept apart of it.
SELECT relname, pg_total_relation_size(oid)::bigint FROM pg_class
WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r';
