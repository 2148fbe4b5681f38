-- The transaction that holds readers back: of which session, or how it was prepared, and for how many seconds.
SELECT
    coalesce('that of process ' || pid || ' of the server', 'that which was prepared as ' || quote_literal(application)),
    extract(epoch FROM since)::bigint
FROM holding_back LIMIT 1;
