"""Blobs on an IPFS node, by the RPC API of Kubo (``/api/v0/``) over HTTP. Needs the extra ``ipfs``.

A blob is a file of IPFS, added so that it gets the identifier that is computed here, and pinned, so that the node keeps
it. What comes back is compared with the identifier: a whole blob by computing it anew, a part of one by the blocks of
the nodes above it, from the root down.

A node that has no block for an identifier may look for it in its network for as long as it likes, so every question
says for how long.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import msgspec

from interpreters.blobs.cid import (
    CHUNK_BYTES,
    DAG_PB,
    CidBuilder,
    check_cid,
    cid_in_base,
    cid_like,
    digest_in,
    is_cid,
    is_raw,
    links_in,
    text_of,
)
from interpreters.blobs.homes import ANY_MIME, BlobProgress, KeptBlob, check_is, check_mime, damaged, pieces_of
from interpreters.blobs.proofs import ProvedDigests, Unproved
from interpreters.blobs.reading import as_file
from persist_effects.errors import BlobNotFound, CorruptStore, InvalidRequest, StoreClosed, StoreUnavailable
from persist_effects.machine import Handlers
from persist_effects.requests import BlobGet, BlobHas, BlobPut, BlobRef

if TYPE_CHECKING:
    import httpx

TIMEOUT_SECONDS = 10.0
"""How long a node may look for a block, and how long it may take to answer or to go on."""

# As a file is added by `ipfs add --cid-version=1`, with what are its defaults or were at some time written out.
_ADD = {
    "cid-version": "1",
    "raw-leaves": "true",
    "chunker": f"size-{CHUNK_BYTES}",
    "hash": "sha2-256",
    "pin": "true",
    "cid-base": "base32",
    "quieter": "true",
}


class IpfsBlobs:
    """A blob store on an IPFS node, which any number of threads and processes may use at once.

    What is put is pinned on the node. It does not keep when, and others may have pinned the same: so nothing is dropped
    from here, and a sweep refuses such a home.

    Args:
        api: The address of the node's RPC API, such as ``http://127.0.0.1:5001``.
        read_only: Blobs cannot be put.
        timeout_seconds: How long the node may look for a block, and how long it may take to answer or to go on.

    Raises:
        InvalidRequest: It is not the address of an API, or the package httpx is not installed.

    >>> IpfsBlobs("127.0.0.1:5001")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: '127.0.0.1:5001' is not the address of an RPC API: ...
    """

    def __init__(self, api: str, *, read_only: bool = False, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        try:
            import httpx
        except ModuleNotFoundError as error:
            raise InvalidRequest("blobs on IPFS need the package httpx: pip install httpx") from error

        if not api.startswith(("http://", "https://")):
            raise InvalidRequest(
                f"{api!r} is not the address of an RPC API: write http://HOST:PORT, as in ipfs:http://127.0.0.1:5001"
            )
        if not 0.001 <= timeout_seconds <= 86_400:
            raise InvalidRequest(f"timeout is {timeout_seconds}: give a number of seconds, from 0.001 to 86400")
        self.api = api.rstrip("/")
        self._is_read_only = read_only
        self._timeout_seconds = timeout_seconds
        self._is_closed = False
        # The node is given its time to look; what it says then needs some to come.
        self._client = httpx.Client(timeout=timeout_seconds + 2.0, trust_env=False)
        self.handlers: Handlers = {BlobPut: self._put, BlobGet: self._get, BlobHas: self._has}

    def close(self) -> None:
        """Close the connections. Again: nothing."""
        self._is_closed = True
        self._client.close()

    def put_file(
        self, file: BinaryIO, mime: str = ANY_MIME, progress: BlobProgress | None = None, *, cid: str | None = None
    ) -> BlobRef:
        """Put all that a binary file gives: see `interpreters.blobs.homes.BlobHome`.

        Args:
            file: The file.
            mime: The MIME type of its bytes.
            progress: Told after each piece.
            cid: The identifier that the bytes must have.

        Returns:
            The reference to keep.

        Raises:
            InvalidRequest: The bytes do not have that identifier, or the file does not give bytes.
            StoreUnavailable: The node cannot be asked, or gives the bytes another identifier than IPFS does.
        """
        check_mime(mime)
        if cid is not None:
            check_cid(cid)
        self._check_may_put("put_file")
        upload = _Upload(file, progress)
        # What must have an identifier is pinned only once it is known to have it.
        options = _ADD if cid is None else {**_ADD, "pin": "false"}
        with self._errors("add"):
            answer = self._client.post(
                self._url("add"), params=options, files={"file": ("blob", cast(BinaryIO, upload))}
            )
        given = self._identifier(self._record("add", answer), "Hash")
        found = upload.builder.cid()
        check_is(cid, found)
        if given != found:
            raise StoreUnavailable(f"{self.api}: add gave blob {found} the identifier {given}: is it a node of IPFS?")
        if cid is not None:
            self._ask("pin/add", arg=found)
        return BlobRef(found, upload.builder.size_bytes, mime)

    def open_blob(self, cid: str, progress: BlobProgress | None = None) -> BinaryIO:
        """A blob as a binary file to read, from any place of it, of which a chunk is in memory at a time.

        Args:
            cid: The blob's identifier.
            progress: Told after each chunk.

        Returns:
            The file.

        Raises:
            BlobNotFound: The node does not have it.
            CorruptStore: What the node gives are other bytes; told by the file's methods too.
            StoreUnavailable: The node cannot be asked; told by the file's methods too.
        """
        check_cid(cid)
        self._check_open()
        return as_file(_NodeChunks(self, cid), progress)

    def kept(self) -> Iterator[KeptBlob]:
        """The files that are pinned on the node, whoever pinned them, and whose identifiers are as those of blobs.

        Returns:
            The blobs.

        Raises:
            StoreUnavailable: The node cannot be asked.
        """
        with (
            self._errors("pin/ls"),
            self._client.stream("POST", self._url("pin/ls"), params={"type": "recursive", "stream": "true"}) as answer,
        ):
            self._check_answer("pin/ls", answer)
            cids = [
                self._identifier(self._decoded("pin/ls", line), "Cid") for line in answer.iter_lines() if line.strip()
            ]
        for cid in sorted(filter(is_cid, cids)):
            size_bytes = self._size_of(cid)
            if size_bytes is not None:
                yield KeptBlob(cid, size_bytes, None)

    def drop(self, cid: str, put_before: int) -> bool:
        """Refuse: a node does not keep when a blob was put, nor who else counts on it.

        Args:
            cid: The blob's identifier.
            put_before: The moment, in microseconds since 1970, UTC.

        Returns:
            Nothing.

        Raises:
            InvalidRequest: Always.
        """
        raise InvalidRequest(
            f"{self.api}: an IPFS node does not keep when a blob was put, and others may have pinned it too: where you "
            f"know better, write ipfs pin rm {cid}"
        )

    def drop_unfinished(self, put_before: int, *, dry_run: bool = False) -> int:
        """Nothing: what is not pinned, the node gives up by itself.

        Args:
            put_before: The moment, in microseconds since 1970, UTC.
            dry_run: Whether it is only counted.

        Returns:
            0.
        """
        return 0

    # Rows

    def _put(self, request: BlobPut) -> BlobRef:
        self._check_may_put(request.op)
        return self.put_file(io.BytesIO(request.data), request.mime)

    def _get(self, request: BlobGet) -> bytes:
        check_cid(request.cid)
        data = self.cat(request.cid)
        found = cid_like(request.cid, data)
        if found != request.cid:
            raise self.damaged(request.cid, f"{len(data)} bytes of blob {found}")
        return data

    def _has(self, request: BlobHas) -> bool:
        check_cid(request.cid)
        return self._is_pinned(request.cid)

    # Parts of a blob

    def cat(self, cid: str, offset: int = 0, size_bytes: int | None = None) -> bytes:
        """Some of the bytes of a blob, as the node gives them.

        Args:
            cid: The blob's identifier.
            offset: Where to begin.
            size_bytes: How many, at the most; None: all that are left.

        Returns:
            The bytes.

        Raises:
            BlobNotFound: The node does not have it.
            StoreUnavailable: The node cannot be asked.
        """
        part = {} if size_bytes is None else {"offset": str(offset), "length": str(size_bytes)}
        return self._found(cid, "cat", arg=cid, **part)

    def block(self, cid: str, of: str) -> bytes:
        """A block, compared with its identifier.

        Args:
            cid: The block's identifier.
            of: That of the blob that it belongs to.

        Returns:
            The block.

        Raises:
            BlobNotFound: The node does not have it.
            CorruptStore: The node gives other bytes.
            StoreUnavailable: The node cannot be asked.
        """
        block = self._found(of, "block/get", arg=cid)
        if sha256(block).digest() != digest_in(cid):
            raise self.damaged(of, f"another block than {cid}")
        return block

    def damaged(self, cid: str, found: str) -> CorruptStore:
        """The error for what a node gives and is not of the blob.

        Args:
            cid: The blob's identifier.
            found: What was found.

        Returns:
            The error, to be raised.
        """
        return damaged(f"{self.api}/ipfs/{cid}", cid, found, may_be_put_again=True)

    def _size_of(self, cid: str) -> int | None:
        """How many bytes a blob has; None for what is pinned and is not one."""
        block = self.block(cid, cid)
        if is_raw(cid):
            return len(block)
        try:
            return links_in(block)[1]
        except (ValueError, KeyError):
            return None

    # Questions

    def _found(self, cid: str, command: str, **parameters: str) -> bytes:
        try:
            return self._ask(command, **parameters)
        except _Refused as error:
            # A node that has not found it in time may still have it, if it is said to be pinned.
            if self._is_pinned(cid):
                raise StoreUnavailable(
                    f"{error}, and the blob is pinned there: try again, or look at the node"
                ) from error
            raise BlobNotFound(cid) from error

    def _is_pinned(self, cid: str) -> bool:
        try:
            self._ask("pin/ls", arg=cid, type="recursive")
        except _Refused as error:
            if "not pinned" in error.message:
                return False
            raise
        return True

    def _ask(self, command: str, **parameters: str) -> bytes:
        self._check_open()
        timeout = f"{self._timeout_seconds:g}s"
        with self._errors(command):
            given = {**parameters, "timeout": timeout}
            with self._client.stream("POST", self._url(command), params=given) as answer:
                self._check_answer(command, answer)
                # Not by its `content`: it would keep that until the garbage is collected.
                return b"".join(answer.iter_bytes())

    def _record(self, command: str, answer: "httpx.Response") -> Any:
        self._check_answer(command, answer)
        lines = answer.text.strip().splitlines()
        return self._decoded(command, lines[-1] if lines else "")

    def _decoded(self, command: str, line: str) -> Any:
        try:
            return msgspec.json.decode(line)
        except msgspec.DecodeError as error:
            raise self._not_kubo(command, repr(line[:80])) from error

    def _identifier(self, record: Any, field: str) -> str:
        try:
            return cid_in_base(record[field])
        except (TypeError, KeyError, ValueError) as error:
            raise self._not_kubo(field, repr(record)[:80]) from error

    def _check_answer(self, command: str, answer: "httpx.Response") -> None:
        if answer.status_code == 200:
            return
        answer.read()
        try:
            message = msgspec.json.decode(answer.content)["Message"]
        except (msgspec.DecodeError, TypeError, KeyError) as error:
            raise self._not_kubo(command, f"status {answer.status_code}") from error
        if answer.status_code == 404:
            raise self._not_kubo(command, f"status 404, {message!r}")
        raise _Refused(f"{self.api}: {command} was refused: {message}", str(message))

    def _not_kubo(self, command: str, found: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.api} does not answer as the RPC API of Kubo: {command} gave {found}: give the address of the API, "
            "which is not that of the gateway"
        )

    @contextmanager
    def _errors(self, command: str) -> Iterator[None]:
        import httpx

        try:
            yield
        except httpx.TimeoutException as error:
            raise StoreUnavailable(
                f"{self.api}: {command} took longer than {self._timeout_seconds:g} seconds: see to the node, or give "
                "it more, as in ipfs:http://HOST:PORT?timeout=60"
            ) from error
        except httpx.ConnectError as error:
            raise StoreUnavailable(f"{self.api}: there is no IPFS node: {error}: start one, then try again") from error
        except httpx.RemoteProtocolError as error:
            raise self._not_kubo(command, str(error)) from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise StoreUnavailable(f"{self.api}: {command} failed: {error}: see to the node, then try again") from error

    def _url(self, command: str) -> str:
        return f"{self.api}/api/v0/{command}"

    def _check_may_put(self, what: str) -> None:
        self._check_open()
        if self._is_read_only:
            raise InvalidRequest(f"{what}: {self.api} was opened to read only: open it without read_only to write")

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreClosed(f"{self.api}: the blob store was closed: open it again")


class _Refused(StoreUnavailable):
    """A node answered that it cannot do what it was asked."""

    def __init__(self, text: str, message: str) -> None:
        super().__init__(text)
        self.message = message


class _Upload:
    """What of a file is being sent, hashed as it goes. It has no size, so it is sent as it comes."""

    def __init__(self, file: BinaryIO, progress: BlobProgress | None) -> None:
        self.builder = CidBuilder()
        self._pieces = pieces_of(file)
        self._progress = progress

    def read(self, size: int = -1) -> bytes:
        """The next piece, of whichever size it has; nothing at the end."""
        piece = next(self._pieces, b"")
        if piece:
            self.builder.feed(piece)
            if self._progress is not None:
                self._progress(self.builder.size_bytes, 0)
        return piece


class _NodeChunks:
    """The chunks of a blob on a node."""

    def __init__(self, home: IpfsBlobs, cid: str) -> None:
        self._home = home
        self._cid = cid
        self._whole: bytes | None = None
        if is_raw(cid):
            self._whole = home.block(cid, cid)
            self.size_bytes = len(self._whole)
            return
        try:
            _, self.size_bytes = links_in(home.block(cid, cid))
            self._proved = ProvedDigests(cid, self.size_bytes, self._digests_below)
            self._proved.of_chunk(0)
        except (ValueError, KeyError, Unproved) as error:
            raise InvalidRequest(
                f"{home.api}: {cid} is not a file that is cut and linked as blobs are: add it with "
                "`ipfs add --cid-version=1`"
            ) from error

    def chunk(self, index: int) -> bytes:
        """A chunk, compared with its digest."""
        offset = index * CHUNK_BYTES
        if self._whole is not None:
            return self._whole[offset : offset + CHUNK_BYTES]
        data = self._home.cat(self._cid, offset, CHUNK_BYTES)
        if sha256(data).digest() != self._proved.of_chunk(index):
            raise self._home.damaged(self._cid, f"{len(data)} other bytes at offset {offset}")
        return data

    def close(self) -> None:
        """Nothing to let go of."""

    def _digests_below(self, level: int, index: int, digest: bytes) -> bytes:
        return links_in(self._home.block(text_of(DAG_PB, digest), self._cid))[0]
