"""The version of this package: its metadata is made with it, and traces name it."""

__version__ = "0.1.0"
