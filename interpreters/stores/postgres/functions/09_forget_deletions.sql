-- Keep of all settled deletions but the newest only how new they are.
CREATE OR REPLACE FUNCTION forget_deletions(kept integer) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    last bigint;
BEGIN
    SELECT d.revision INTO last FROM deletions d WHERE d.revision < settled()
    ORDER BY d.revision DESC OFFSET kept LIMIT 1;
    IF last IS NOT NULL THEN
        UPDATE meta SET forgotten = last WHERE forgotten < last;
        DELETE FROM deletions d WHERE d.revision <= last;
    END IF;
END
$$;
