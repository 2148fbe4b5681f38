SELECT failed, actuals, answers, positions, is_awaited FROM commit_writes(
    %s::integer, %s::bigint, %s::integer[], %s::text[], %s::text[], %s::integer[], %s::integer[],
    %s::boolean[], %s::integer[], %s::integer[], %s::bigint[], %s::bigint[], %s::integer[],
    %s::integer[], %s::bigint[], %s::integer[], %s::integer[], %s::integer[], %s::text[],
    %s::integer[], %s::bigint[], %s::integer[], %s::integer[], %s::integer[], %s::integer[],
    %s::bytea
);
