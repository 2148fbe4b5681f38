-- The newest settled revision of the keys that lie in a range, that of a deletion too. The newest are looked at first.
CREATE OR REPLACE FUNCTION newest_revision(key_from text, key_to text, after bigint, looked_at integer)
RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    below CONSTANT bigint := settled();
    deleted bigint;
    found bigint;
BEGIN
    SELECT greatest(
        (SELECT m.forgotten FROM meta m),
        (SELECT max(d.revision) FROM deletions d WHERE d.key >= key_from AND d.key < key_to AND d.revision < below)
    ) INTO deleted;
    SELECT e.revision INTO found
    FROM (
        SELECT e.revision, e.key FROM entries e WHERE e.revision > greatest(after, deleted) AND e.revision < below
        ORDER BY e.revision DESC LIMIT looked_at
    ) AS e
    WHERE e.key >= key_from AND e.key < key_to
    ORDER BY e.revision DESC LIMIT 1;
    IF found IS NULL AND deleted <= after THEN
        -- By keys: OFFSET keeps this from being looked for by revisions.
        SELECT max(e.revision) INTO found
        FROM (SELECT e.revision FROM entries e WHERE e.key >= key_from AND e.key < key_to OFFSET 0) AS e
        WHERE e.revision < below;
    END IF;
    RETURN greatest(found, deleted, 0);
END
$$;
