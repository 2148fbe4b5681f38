-- The number that the bits of a float are; as text where JSON has it not.
CREATE OR REPLACE FUNCTION msgpack_float(bits bit(64)) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    sign CONSTANT float8 := CASE WHEN get_bit(bits, 0) = 1 THEN -1 ELSE 1 END;
    exponent CONSTANT integer := substring(bits FROM 2 FOR 11)::bit(11)::integer;
    fraction CONSTANT float8 := substring(bits FROM 13 FOR 52)::bit(52)::bigint;
BEGIN
    IF exponent = 2047 THEN
        RETURN to_jsonb(CASE WHEN fraction > 0 THEN 'NaN' WHEN sign < 0 THEN '-Infinity' ELSE 'Infinity' END);
    ELSIF exponent = 0 THEN
        RETURN to_jsonb(sign * (fraction * 2::float8 ^ -537) * 2::float8 ^ -537);
    ELSIF exponent > 52 THEN
        RETURN to_jsonb(sign * (1 + fraction / 2::float8 ^ 52) * 2::float8 ^ (exponent - 1023));
    END IF;
    RETURN to_jsonb(sign * (1 + fraction / 2::float8 ^ 52) * 2::float8 ^ (exponent - 523) * 2::float8 ^ -500);
END
$$;
