-- Whether the server keeps what it has acknowledged.
SELECT current_setting('fsync') = 'on', current_setting('synchronous_commit') <> 'off';
