"""A store in another process: its requests travel as records over a connection, and a server asks the store.

`wire.py` has the bytes. On the client's side a `Line` has the connection, which it gets from one of the doors of
`doors.py`. On the server's side stand `StoreServer`, a `ServedClient` for each connection, and `Answering` before the
store.
"""

from interpreters.stores.served.client import RemoteStore
from interpreters.stores.served.server import serve

__all__ = ["RemoteStore", "serve"]
