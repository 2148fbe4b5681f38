-- Carry out the writes of several programs in one transaction, those of each all or none, and say what came of each.
--
-- A condition is of a kind: 1, a stream has this sequence number; 2, a key has this revision; 3 and 4 are never right,
-- and what is there instead is known, of a stream or a key. A write is of a kind: 1, an append; 2, a truncation; 3, a
-- stream begins; 4, a put; 5, a deletion. All indexes count from 1.
CREATE OR REPLACE FUNCTION commit_writes(
    space integer,
    now_at bigint,
    -- The locks of all streams and keys, in order.
    buckets integer[],
    stream_names text[],
    key_names text[],
    -- Of each program: how many conditions and writes are its own, and whether its last write notes the others' answers.
    program_conditions integer[],
    program_writes integer[],
    program_notes boolean[],
    condition_kinds integer[],
    condition_names integer[],
    condition_expected bigint[],
    -- What the program itself adds to what is there, before this is right.
    condition_added bigint[],
    write_kinds integer[],
    write_names integer[],
    -- Of an append, how many events; of a truncation and of a beginning, the sequence number.
    write_numbers bigint[],
    -- Where in the payload the value of a put begins, from 1, and how long it is.
    write_starts integer[],
    write_lengths integer[],
    -- Of each event: its append.
    event_writes integer[],
    type_names text[],
    event_types integer[],
    -- Null: now.
    event_times bigint[],
    event_starts integer[],
    event_lengths integer[],
    -- Null, or a length of 0: there is no meta.
    event_meta_starts integer[],
    event_meta_lengths integer[],
    payload bytea,
    -- Of each program, the condition that was not right, and what was there; 0: all were.
    OUT failed integer[],
    OUT actuals bigint[],
    -- Of each write: the first sequence number, how many events were dropped, a revision, whether a key was there.
    OUT answers bigint[],
    -- Of each append and beginning.
    OUT positions bigint[],
    -- Whether somebody may listen for it.
    OUT is_awaited boolean
) LANGUAGE plpgsql VOLATILE AS $$
DECLARE
    id_offset bigint;
    base bigint;
    position_count bigint := 0;
    revision_count bigint := 0;
    stream_ids bigint[];
    heads bigint[];
    floors bigint[];
    floor_positions bigint[];
    is_new boolean[];
    is_shortened boolean[];
    revisions bigint[];
    -- Of each key, the write that put it last; -1: it was deleted.
    last_writes integer[];
    deletions_of bigint[];
    note_starts integer[];
    -- Of each append: what is added to the number of an event in the batch, for its position and its sequence number.
    position_steps bigint[];
    seq_steps bigint[];
    event_count bigint := 0;
    condition_at integer := 0;
    write_at integer := 0;
    first_write integer;
    n integer;
    number bigint;
    found bigint;
BEGIN
    -- First all the locks and then an id: so those of a stream's transactions grow as its sequence numbers do.
    PERFORM pg_advisory_xact_lock(space, bucket) FROM unnest(buckets) AS bucket;
    SELECT m.xid_offset INTO id_offset FROM meta m;
    IF cardinality(stream_names) > 0 THEN
        SELECT
            array_agg(coalesce(s.id, 0) ORDER BY asked.at),
            array_agg(coalesce(last.seq, s.dropped, 0) ORDER BY asked.at),
            array_agg(coalesce(s.dropped, 0) ORDER BY asked.at),
            array_agg(0 ORDER BY asked.at),
            array_agg(false ORDER BY asked.at),
            array_agg(false ORDER BY asked.at)
        INTO stream_ids, heads, floors, floor_positions, is_new, is_shortened
        FROM unnest(stream_names) WITH ORDINALITY AS asked (name, at)
        LEFT JOIN streams s ON s.name = asked.name
        LEFT JOIN LATERAL (SELECT e.seq FROM events e WHERE e.stream = s.id ORDER BY e.seq DESC LIMIT 1) last ON true;
    END IF;
    IF cardinality(key_names) > 0 THEN
        SELECT
            array_agg(coalesce(e.revision, 0) ORDER BY asked.at),
            array_agg(0 ORDER BY asked.at),
            array_agg(0 ORDER BY asked.at)
        INTO revisions, last_writes, deletions_of
        FROM unnest(key_names) WITH ORDINALITY AS asked (key, at)
        LEFT JOIN entries e ON e.key = asked.key;
    END IF;
    is_awaited := NOT pg_try_advisory_xact_lock(space, -1);
    base := (pg_current_xact_id()::text::bigint + id_offset) << 20;
    failed := array_fill(0, ARRAY[cardinality(program_writes)]);
    actuals := array_fill(0::bigint, ARRAY[cardinality(program_writes)]);
    answers := array_fill(NULL::bigint, ARRAY[cardinality(write_kinds)]);
    positions := array_fill(0::bigint, ARRAY[cardinality(write_kinds)]);
    note_starts := array_fill(0, ARRAY[cardinality(write_kinds)]);
    position_steps := array_fill(NULL::bigint, ARRAY[cardinality(write_kinds)]);
    seq_steps := array_fill(0::bigint, ARRAY[cardinality(write_kinds)]);

    FOR program IN 1 .. cardinality(program_writes) LOOP
        FOR condition IN condition_at + 1 .. condition_at + program_conditions[program] LOOP
            n := condition_names[condition];
            found := condition_added[condition] + CASE condition_kinds[condition]
                WHEN 1 THEN heads[n]
                WHEN 2 THEN revisions[n]
                WHEN 3 THEN 0
                ELSE base + revision_count
            END;
            IF condition_kinds[condition] > 2 OR found <> condition_expected[condition] THEN
                failed[program] := condition;
                actuals[program] := found;
                EXIT;
            END IF;
        END LOOP;
        condition_at := condition_at + program_conditions[program];
        first_write := write_at + 1;
        write_at := write_at + program_writes[program];
        IF failed[program] > 0 THEN
            FOR write IN first_write .. write_at LOOP
                IF write_kinds[write] = 1 THEN
                    event_count := event_count + write_numbers[write];
                END IF;
            END LOOP;
            CONTINUE;
        END IF;
        FOR write IN first_write .. write_at LOOP
            n := write_names[write];
            number := write_numbers[write];
            CASE write_kinds[write]
            WHEN 1 THEN
                IF stream_ids[n] = 0 THEN
                    stream_ids[n] := nextval('stream_ids');
                    is_new[n] := true;
                END IF;
                answers[write] := heads[n] + 1;
                seq_steps[write] := heads[n] - event_count;
                position_steps[write] := base + position_count - event_count;
                heads[n] := heads[n] + number;
                event_count := event_count + number;
                position_count := position_count + number;
                positions[write] := base + position_count;
            WHEN 2 THEN
                number := least(number, heads[n]);
                answers[write] := greatest(number - floors[n], 0);
                IF answers[write] > 0 THEN
                    floors[n] := number;
                    is_shortened[n] := true;
                END IF;
            WHEN 3 THEN
                stream_ids[n] := nextval('stream_ids');
                is_new[n] := true;
                heads[n] := number;
                floors[n] := number;
                position_count := position_count + 1;
                positions[write] := base + position_count;
                answers[write] := positions[write];
                floor_positions[n] := positions[write];
            WHEN 4 THEN
                revision_count := revision_count + 1;
                revisions[n] := base + revision_count;
                answers[write] := revisions[n];
                last_writes[n] := write;
            WHEN 5 THEN
                answers[write] := 0;
                IF revisions[n] > 0 THEN
                    revision_count := revision_count + 1;
                    revisions[n] := 0;
                    answers[write] := 1;
                    last_writes[n] := -1;
                    deletions_of[n] := base + revision_count;
                END IF;
            END CASE;
        END LOOP;
        IF program_notes[program] THEN
            note_starts[write_at] := first_write;
        END IF;
    END LOOP;

    IF greatest(position_count, revision_count) >= 1 << 20 THEN
        RAISE EXCEPTION 'more than % changes in one transaction', (1 << 20) - 1;
    END IF;
    IF true = ANY (is_new) THEN
        INSERT INTO streams (id, name, dropped, dropped_position)
        SELECT made.id, made.name, made.dropped, made.dropped_position
        FROM unnest(stream_ids, stream_names, floors, floor_positions, is_new)
            AS made (id, name, dropped, dropped_position, is_new)
        WHERE made.is_new;
    END IF;
    IF cardinality(event_writes) > 0 THEN
        INSERT INTO events (position, stream, seq, type, at, data, meta, noted)
        SELECT
            position_steps[e.write] + e.number,
            stream_ids[write_names[e.write]],
            seq_steps[e.write] + e.number,
            type_names[e.type],
            coalesce(e.at, now_at),
            substr(payload, e.start, e.length),
            CASE WHEN e.meta_length > 0 THEN substr(payload, e.meta_start, e.meta_length) END,
            CASE
                WHEN note_starts[e.write] > 0
                THEN answers[note_starts[e.write] : e.write - 1] || positions[note_starts[e.write] : e.write - 1]
            END
        FROM unnest(
            event_writes, event_types, event_times, event_starts, event_lengths, event_meta_starts, event_meta_lengths
        ) WITH ORDINALITY AS e (write, type, at, start, length, meta_start, meta_length, number)
        WHERE position_steps[e.write] IS NOT NULL;
    END IF;
    IF true = ANY (is_shortened) THEN
        FOR place IN 1 .. cardinality(stream_names) LOOP
            CONTINUE WHEN NOT is_shortened[place];
            SELECT e.position INTO found FROM events e WHERE e.stream = stream_ids[place] AND e.seq = floors[place];
            DELETE FROM events e WHERE e.stream = stream_ids[place] AND e.seq <= floors[place];
            UPDATE streams s SET dropped = floors[place], dropped_position = found WHERE s.id = stream_ids[place];
        END LOOP;
    END IF;
    IF revision_count > 0 THEN
        INSERT INTO entries AS there (key, revision, value, noted)
        SELECT
            key_names[k.at],
            answers[k.write],
            substr(payload, write_starts[k.write], write_lengths[k.write]),
            CASE
                WHEN note_starts[k.write] > 0
                THEN answers[note_starts[k.write] : k.write - 1] || positions[note_starts[k.write] : k.write - 1]
            END
        FROM unnest(last_writes) WITH ORDINALITY AS k (write, at)
        WHERE k.write > 0
        ON CONFLICT (key) DO UPDATE
        SET revision = excluded.revision, value = excluded.value, noted = excluded.noted;
        IF -1 = ANY (last_writes) THEN
            DELETE FROM entries e
            USING unnest(last_writes) WITH ORDINALITY AS k (write, at)
            WHERE k.write = -1 AND e.key = key_names[k.at];
        END IF;
        INSERT INTO deletions (revision, key)
        SELECT k.revision, key_names[k.at]
        FROM unnest(deletions_of) WITH ORDINALITY AS k (revision, at)
        WHERE k.revision > 0;
    END IF;
END
$$;
