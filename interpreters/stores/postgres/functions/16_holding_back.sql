-- The transactions, anywhere in this cluster, that keep readers of all streams from what was written after they began
-- to write. The first one is what they wait for: that which began to write before the others.
CREATE OR REPLACE VIEW holding_back AS
SELECT
    transaction_id::text, since, pid, database, role, application, state, query
FROM (
    SELECT
        activity.backend_xid, now() - activity.xact_start, activity.pid, activity.datname, activity.usename,
        activity.application_name, activity.state, activity.query
    FROM pg_stat_activity AS activity
    WHERE activity.backend_xid IS NOT NULL
    UNION ALL
    SELECT
        prepared.transaction, now() - prepared.prepared, NULL, prepared.database, prepared.owner, prepared.gid,
        'prepared', NULL
    FROM pg_prepared_xacts AS prepared
) AS writing (transaction_id, since, pid, database, role, application, state, query)
ORDER BY age(writing.transaction_id) DESC;
