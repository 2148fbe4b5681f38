"""Interpreters around interpreters: what each adds, it adds to any store."""
