SELECT actual, given FROM append_event(
    %s::integer, %s::integer, %s::text, %s::bigint, %s::text, %s::bigint, %s::bytea, %s::bytea
);
