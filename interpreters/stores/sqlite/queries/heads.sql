-- The newest position and the newest revision.
SELECT
    max((SELECT position FROM meta), ifnull((SELECT max(position) FROM events), 0)),
    max(
        (SELECT revision FROM meta),
        ifnull((SELECT max(revision) FROM entries), 0),
        ifnull((SELECT max(revision) FROM deletions), 0)
    );
