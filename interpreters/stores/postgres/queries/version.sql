SELECT meta.version FROM meta WHERE meta.xid_offset IS NOT NULL;
