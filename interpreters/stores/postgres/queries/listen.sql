LISTEN persist_effects;
