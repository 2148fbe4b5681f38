"""Blobs in this process's memory, and what stands for a blob store where none was given that could keep them."""

from interpreters.blobs.cid import check_cid, cid_of
from persist_effects.errors import BlobNotFound, InvalidRequest
from persist_effects.machine import Handlers
from persist_effects.requests import BlobGet, BlobHas, BlobPut, BlobRef


class MemoryBlobs:
    """Bytes by the hash of their content, for as long as the object lives. Usable from any thread.

    >>> from persist_effects import blob, run
    >>> run(blob.put(b"hello"), MemoryBlobs().handlers).size
    5
    """

    def __init__(self) -> None:
        # A dict's single operations are atomic, and the same key always has the same value: no lock is needed.
        self._blobs: dict[str, bytes] = {}
        self.handlers: Handlers = {BlobPut: self._put, BlobGet: self._get, BlobHas: self._has}

    def close(self) -> None:
        """Nothing to let go of."""

    def _put(self, request: BlobPut) -> BlobRef:
        cid = cid_of(request.data)
        self._blobs[cid] = request.data
        return BlobRef(cid, len(request.data), request.mime)

    def _get(self, request: BlobGet) -> bytes:
        check_cid(request.cid)
        try:
            return self._blobs[request.cid]
        except KeyError:
            raise BlobNotFound(request.cid) from None

    def _has(self, request: BlobHas) -> bool:
        check_cid(request.cid)
        return request.cid in self._blobs


class NoBlobs(MemoryBlobs):
    """Beside a durable store that was given no blob store: it holds nothing, and refuses to put what it would lose.

    >>> from persist_effects import blob, run
    >>> run(blob.put(b"hello"), NoBlobs().handlers)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: blob/put: this store is durable and has no blob store of its own: ...
    """

    def _put(self, request: BlobPut) -> BlobRef:
        raise InvalidRequest(
            f"{request.op}: this store is durable and has no blob store of its own: its references would outlive bytes "
            "that are only in this process's memory. Give it a blob store that keeps them, `blobs=…`, or "
            "`blobs=MemoryBlobs()`, of interpreters.blobs.memory, to accept that they are lost with the process"
        )
