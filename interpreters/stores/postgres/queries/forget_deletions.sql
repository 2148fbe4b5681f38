SELECT forget_deletions(%s);
