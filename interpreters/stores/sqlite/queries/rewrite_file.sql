-- Write all that is wanted anew, and nothing else.
VACUUM;
