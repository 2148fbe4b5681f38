SELECT data FROM blobs WHERE cid = %s;
