-- One item of msgpack, as jsonb, and where the next begins. Bytes are shown in hex, as \x and their digits.
CREATE OR REPLACE FUNCTION msgpack_item(packed bytea, at integer, OUT shown jsonb, OUT next integer)
LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
    first CONSTANT integer := get_byte(packed, at);
    -- How many bytes a number or a length has that follows.
    width CONSTANT integer := CASE
        WHEN first IN (196, 204, 208, 217) THEN 1
        WHEN first IN (197, 205, 209, 218, 220, 222) THEN 2
        WHEN first IN (198, 202, 206, 210, 219, 221, 223) THEN 4
        WHEN first IN (203, 207, 211) THEN 8
        ELSE 0
    END;
    bits CONSTANT bit(64) := ('x' || lpad(encode(substr(packed, at + 2, width), 'hex'), 16, '0'))::bit(64);
    number numeric := bits::bigint;
    size integer;
    item record;
    name text;
BEGIN
    next := at + 1 + width;
    IF first < 128 THEN
        shown := to_jsonb(first);
    ELSIF first >= 224 THEN
        shown := to_jsonb(first - 256);
    ELSIF first = 192 THEN
        shown := 'null';
    ELSIF first IN (194, 195) THEN
        shown := to_jsonb(first = 195);
    ELSIF first BETWEEN 204 AND 207 THEN
        shown := to_jsonb(CASE WHEN number < 0 THEN number + 18446744073709551616 ELSE number END);
    ELSIF first BETWEEN 208 AND 211 THEN
        IF width < 8 AND number >= 2 ^ (8 * width - 1) THEN
            number := number - 2 ^ (8 * width);
        END IF;
        shown := to_jsonb(trunc(number));
    ELSIF first = 203 THEN
        shown := msgpack_float(bits);
    ELSIF first BETWEEN 160 AND 191 OR first BETWEEN 217 AND 219 THEN
        size := CASE WHEN first < 192 THEN first - 160 ELSE number END;
        shown := to_jsonb(convert_from(substr(packed, next + 1, size), 'UTF8'));
        next := next + size;
    ELSIF first BETWEEN 196 AND 198 THEN
        size := number;
        shown := to_jsonb('\x' || encode(substr(packed, next + 1, size), 'hex'));
        next := next + size;
    ELSIF first BETWEEN 144 AND 159 OR first BETWEEN 220 AND 221 THEN
        shown := '[]';
        FOR _ IN 1 .. CASE WHEN first < 192 THEN first - 144 ELSE number END LOOP
            item := msgpack_item(packed, next);
            shown := shown || jsonb_build_array(item.shown);
            next := item.next;
        END LOOP;
    ELSIF first BETWEEN 128 AND 143 OR first BETWEEN 222 AND 223 THEN
        shown := '{}';
        FOR _ IN 1 .. CASE WHEN first < 192 THEN first - 128 ELSE number END LOOP
            item := msgpack_item(packed, next);
            name := item.shown #>> '{}';
            item := msgpack_item(packed, item.next);
            shown := shown || jsonb_build_object(name, item.shown);
            next := item.next;
        END LOOP;
    ELSE
        RAISE EXCEPTION 'no value begins with the byte %', first;
    END IF;
END
$$;
