"""A store in another process: requests travel as records over any transport that carries bytes.

A frame is a length of four bytes, big-endian, and that many bytes of msgpack. The client sends ``[id, request]``,
a request being ``{"op": "persist/append", …}``; the server answers ``[id, true, answer]`` or
``[id, false, [error's name, its arguments…]]``, in any order. Ids are the client's own, from 1.
``python -m interpreters.serving`` sends a reply to the id 0 before any other: whether the store is open.
"""

from interpreters.stores.served.client import RemoteStore
from interpreters.stores.served.server import serve
from interpreters.stores.served.transport import PipeTransport, SocketTransport, Transport

__all__ = ["PipeTransport", "RemoteStore", "SocketTransport", "Transport", "serve"]
