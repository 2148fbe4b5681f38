UNLISTEN persist_effects;
