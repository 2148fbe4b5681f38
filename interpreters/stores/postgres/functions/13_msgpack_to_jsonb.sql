-- What msgpack holds, as jsonb, for people who look; null where jsonb cannot hold it.
CREATE OR REPLACE FUNCTION msgpack_to_jsonb(packed bytea) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE STRICT AS $$
BEGIN
    RETURN (msgpack_item(packed, 0)).shown;
EXCEPTION WHEN untranslatable_character OR character_not_in_repertoire THEN
    -- A text with a zero character.
    RETURN NULL;
END
$$;
