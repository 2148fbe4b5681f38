"""What drives programs on an interpreter: in this thread, in rounds, in the tasks of an event loop."""
