INSERT INTO meta (id, position, revision, forgotten) VALUES (1, 0, 0, 0);
