SELECT actual, given, is_awaited FROM append_event(
    %s::integer, %s::integer, %s::text, %s::bigint, %s::text, %s::bigint, %s::bytea, %s::bytea
);
