-- The transaction that holds readers back for the longest time: of which session, or how it was prepared, and how long.
SELECT
    coalesce('that of process ' || pid || ' of the server', 'that which was prepared as ' || quote_literal(application)),
    since::text
FROM holding_back LIMIT 1;
