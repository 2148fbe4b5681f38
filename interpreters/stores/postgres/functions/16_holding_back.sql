-- The transactions, anywhere in this cluster, that keep readers of all streams from what was written after they began
-- to write. The first one is what they wait for.
CREATE OR REPLACE VIEW holding_back AS
SELECT
    activity.backend_xid::text AS transaction_id,
    now() - activity.xact_start AS since,
    activity.pid,
    activity.datname AS database,
    activity.usename AS role,
    activity.application_name AS application,
    activity.state,
    activity.query
FROM pg_stat_activity AS activity
WHERE activity.backend_xid IS NOT NULL
UNION ALL
SELECT
    prepared.transaction::text, now() - prepared.prepared, NULL, prepared.database, prepared.owner,
    prepared.gid, 'prepared', NULL
FROM pg_prepared_xacts AS prepared
ORDER BY 2 DESC;
