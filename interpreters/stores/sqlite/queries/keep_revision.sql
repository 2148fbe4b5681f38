UPDATE meta SET revision = max(revision, ?);
