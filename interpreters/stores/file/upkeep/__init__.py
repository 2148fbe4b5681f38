"""Looking after a file store: is it sound, a copy of it, and what can be saved of a damaged one."""
