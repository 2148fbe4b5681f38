"""Content-addressed bytes: stores that answer the ``blob/*`` requests."""
