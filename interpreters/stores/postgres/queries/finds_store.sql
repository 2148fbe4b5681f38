-- Whether a statement of a program would find the store's tables by their bare names.
SELECT %s::text = ANY (current_schemas(true)::text[]);
