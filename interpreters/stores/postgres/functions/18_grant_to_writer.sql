-- Let a role read and write the store, and no more: it can neither change the tables nor upgrade them.
CREATE OR REPLACE FUNCTION grant_to_writer(role_name text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    schema_name CONSTANT text := current_schema();
BEGIN
    PERFORM grant_to_reader(role_name);
    EXECUTE format('GRANT USAGE ON SEQUENCE %I.stream_ids TO %I', schema_name, role_name);
    EXECUTE format('GRANT INSERT ON %I.streams, %I.events TO %I', schema_name, schema_name, role_name);
    EXECUTE format('GRANT INSERT, UPDATE ON %I.entries TO %I', schema_name, role_name);
    EXECUTE format('GRANT INSERT ON %I.deletions, %I.blobs TO %I', schema_name, schema_name, role_name);
    -- Truncation, deletion, and what is noted of the store itself.
    EXECUTE format('GRANT UPDATE ON %I.streams, %I.meta TO %I', schema_name, schema_name, role_name);
    EXECUTE format(
        'GRANT DELETE ON %I.events, %I.entries, %I.deletions TO %I', schema_name, schema_name, schema_name, role_name
    );
END
$$;
