-- The newest deletion of a key under a prefix; and what is not known of others.
SELECT max((SELECT forgotten FROM meta),
    ifnull((SELECT max(revision) FROM deletions WHERE key >= ? AND key < ?), 0));
