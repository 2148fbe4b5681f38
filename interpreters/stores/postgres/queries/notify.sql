-- Others on this database look whether what was written concerns them.
NOTIFY persist_effects;
