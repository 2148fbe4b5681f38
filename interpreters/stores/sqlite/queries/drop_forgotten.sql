DELETE FROM deletions WHERE revision <= (SELECT forgotten FROM meta);
