"""A copy of a store elsewhere that follows it as long as it runs, and from which any position is restored."""
