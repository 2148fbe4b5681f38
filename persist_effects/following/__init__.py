"""Followers: what `persist_effects.subscription.follow` and `persist_effects.followers` are made of."""
