"""A disk as requests, and what answers them: a real one, and one that crashes."""
