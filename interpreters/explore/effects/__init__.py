"""Every fault at every request of a program, on any store."""
