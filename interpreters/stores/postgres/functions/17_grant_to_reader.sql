-- Let a role read the store.
CREATE OR REPLACE FUNCTION grant_to_reader(role_name text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    schema_name CONSTANT text := current_schema();
BEGIN
    EXECUTE format('GRANT USAGE ON SCHEMA %I TO %I', schema_name, role_name);
    EXECUTE format('GRANT SELECT ON ALL TABLES IN SCHEMA %I TO %I', schema_name, role_name);
END
$$;
