"""What is true of every store, fact by fact. `interpreters.conformance` is their door."""
