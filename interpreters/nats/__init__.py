"""Servers of NATS: one connection to them, for a store or for a home of blobs, and servers of one's own."""
