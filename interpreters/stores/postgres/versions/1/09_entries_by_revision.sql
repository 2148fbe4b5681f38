-- Keys by when they were put, so that what was changed last is found first.
CREATE UNIQUE INDEX entries_by_revision ON entries (revision);
