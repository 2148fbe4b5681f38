-- The same bytes again are there already.
INSERT INTO blobs (cid, data) VALUES (%s, %s) ON CONFLICT (cid) DO NOTHING RETURNING 1;
