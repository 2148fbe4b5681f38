-- Let a statement of a program find what a connection of its own would find, and be planned as there.
SELECT
    set_config('search_path', reset_val, true),
    set_config('plan_cache_mode', 'auto', true),
    set_config('enable_seqscan', 'on', true),
    set_config('enable_hashjoin', 'on', true),
    set_config('enable_mergejoin', 'on', true),
    set_config('enable_bitmapscan', 'on', true)
FROM pg_settings WHERE name = 'search_path';
