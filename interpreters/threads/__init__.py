"""What threads and forks do to state that they share, and how it stays whole."""
