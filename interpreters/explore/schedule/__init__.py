"""Programs together on one store: one order drawn by a seed, or every order."""
