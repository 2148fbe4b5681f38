-- About how many streams there are.
SELECT ifnull(max(id), 0) FROM streams;
