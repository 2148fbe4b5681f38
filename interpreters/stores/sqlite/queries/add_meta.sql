INSERT INTO meta (id, position, forgotten) VALUES (1, 0, 0);
