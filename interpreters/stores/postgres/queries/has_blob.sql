SELECT 1 FROM blobs WHERE cid = %s;
