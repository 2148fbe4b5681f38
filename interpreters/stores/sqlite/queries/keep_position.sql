UPDATE meta SET position = max(position, ?);
