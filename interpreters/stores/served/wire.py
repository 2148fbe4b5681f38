r"""What goes over the wire, as bytes. Nothing here reads or sends.

A frame is a length of four bytes, big-endian, and that many bytes of msgpack. In the order in which they come:

===========================  ==========================================================================================
from the client              ``{wire: 3, token: null}``, the hello
from the server              ``[0, true, {wire: 3, capabilities: {…}, may: "write", served: null}]``, the greeting; or
                             ``[0, false, [error's name, its arguments…]]``, after which it closes, now and at any time
from the client              ``[id, {op: "persist/append", …}]``, a call; ids count from 1 on each connection
from the client              ``[id, null]``: nobody waits for this call's answer any more
from the server              ``[id, true, answer]`` or ``[id, false, [error's name, its arguments…]]``, in any order
from the server              ``[0, true, last id]``, the farewell: it has read the calls up to this one, answers them,
                             and closes
===========================  ==========================================================================================

>>> frame_of([7, None])
b'\x00\x00\x00\x03\x92\x07\xc0'
"""

import math
from typing import Any, Literal

import msgspec

from persist_effects.capabilities import Capabilities
from persist_effects.errors import InvalidRequest, PersistError, StoreUnavailable, error_from_record
from persist_effects.requests import Request, StoreRequest

WIRE_VERSION = 4
"""What both sides speak. Version 2 had no hello, and its server greeted first; version 3 did not ask for the time."""

FRAME_LIMIT_BYTES = 1024 * 1024 * 1024
"""No page of the largest events comes near it: a longer frame means that the peer speaks otherwise."""

HELLO_LIMIT_BYTES = 64 * 1024
"""How long a frame may be before it is known who sends it."""

HEADER_BYTES = 4

May = Literal["write", "read"]


class WaitForOrder(Request[None], frozen=True, gc=False, tag="served/wait-for-order"):
    """Wait until the order of all streams shows what was acknowledged by now, at most ``timeout`` seconds."""

    timeout: float


class AskHealth(Request[dict[str, Any]], frozen=True, gc=False, tag="served/health"):
    """How the server is. It is answered by its event loop, so an answer says that this one turns."""


class AskCompact(Request[list[Any]], frozen=True, gc=False, tag="served/compact"):
    """Have the server's store compacted, which takes as long as it takes; at most ``timeout`` seconds are waited.

    Its answer are the fields of a `Compacted`.
    """

    timeout: float = math.inf


class Hello(msgspec.Struct):
    """What a client says first."""

    wire: int
    token: str | None = None


class Greeting(msgspec.Struct):
    """What the server answers: what its store promises, what this client may do, and how a shared store was opened."""

    wire: int
    capabilities: Capabilities | None = None
    may: May = "write"
    served: dict[str, Any] | None = None


class _Version(msgspec.Struct):
    """The part of a hello or a greeting that every version has."""

    wire: int


_encode = msgspec.msgpack.Encoder().encode
_decode_reply = msgspec.msgpack.Decoder(tuple[int, bool, msgspec.Raw]).decode
_decode_call = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode
_decode_request = msgspec.msgpack.Decoder(StoreRequest | WaitForOrder | AskHealth | AskCompact).decode
_DECODING_ERRORS = (ValueError, LookupError, OverflowError, RecursionError)
_NOTHING = b"\xc0"


class FrameParser:
    r"""Takes bytes as they come, in whatever pieces, and gives the frames that they make.

    Args:
        limit_bytes: How long a frame may be. What a longer one announces is not waited for.

    >>> parser = FrameParser(100)
    >>> parser.take(b"\x00\x00\x00\x03\x92\x07"), parser.is_within, parser.take(b"\xc0\x00\x00")
    ([], True, [b'\x92\x07\xc0'])
    """

    __slots__ = ("_needed", "_rest", "limit_bytes")

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._rest = bytearray()
        # How many bytes there must be before it is worth while to look.
        self._needed = HEADER_BYTES

    @property
    def is_within(self) -> bool:
        """Whether a frame was begun that has not ended."""
        return bool(self._rest)

    def take(self, data: bytes) -> list[bytes]:
        """Take in bytes.

        Args:
            data: What came.

        Returns:
            The bodies of the frames that are whole now, in order.

        Raises:
            InvalidRequest: If a frame announces more than the limit.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return []
            data = bytes(self._rest)
            self._rest = bytearray()
        frames, start, end = [], 0, len(data)
        self._needed = HEADER_BYTES
        while end - start >= HEADER_BYTES:
            length = int.from_bytes(data[start : start + HEADER_BYTES], "big")
            if length > self.limit_bytes:
                raise InvalidRequest(
                    f"a frame of {length} bytes was announced, the limit is {self.limit_bytes}: the peer speaks "
                    "another protocol, or asks for smaller pages and writes less at once"
                )
            stop = start + HEADER_BYTES + length
            if stop > end:
                self._needed = HEADER_BYTES + length
                break
            frames.append(data[start + HEADER_BYTES : stop])
            start = stop
        if start < end:
            self._rest += memoryview(data)[start:]
        return frames


def frame_of(content: Any) -> bytes:
    """The frame of some content.

    Args:
        content: What msgpack can encode. Bytes that are encoded already are a `msgspec.Raw`.

    Returns:
        The frame.

    Raises:
        InvalidRequest: If it is over the limit.
    """
    body = _encode(content)
    if len(body) > FRAME_LIMIT_BYTES:
        raise InvalidRequest(
            f"a frame of {len(body)} bytes is over the limit of {FRAME_LIMIT_BYTES}: "
            "ask for smaller pages, or write less at once"
        )
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def call_of(frame: bytes) -> tuple[int, bytes | None]:
    r"""Take a client's frame apart, once the hello has come.

    Args:
        frame: The body.

    Returns:
        The id, and the request's record; None where the answer is not waited for any more.

    Raises:
        InvalidRequest: If it is not a call.

    >>> call_of(b"\x92\x07\xc0")
    (7, None)
    """
    try:
        call_id, record = _decode_call(frame)
    except _DECODING_ERRORS as error:
        raise InvalidRequest(f"a frame of {len(frame)} bytes is not a call, `[id, request]`: {error}") from error
    found = bytes(record)
    return call_id, None if found == _NOTHING else found


def request_of(record: bytes) -> Request[Any]:
    """The request that a record holds: a store's, or one to the server itself.

    Args:
        record: Its msgpack.

    Returns:
        The request.

    Raises:
        InvalidRequest: If it holds none.
    """
    try:
        request: Request[Any] = _decode_request(record)
    except _DECODING_ERRORS as error:
        raise InvalidRequest(f"a record of {len(record)} bytes is not a request of this store: {error}") from error
    return request


def reply_of(frame: bytes) -> tuple[int, bool, bytes]:
    r"""Take a server's frame apart.

    Args:
        frame: The body.

    Returns:
        The id of the call, whether it is an answer, and the answer's or the error's bytes.

    Raises:
        StoreUnavailable: If it is not a reply.

    >>> reply_of(b"\x93\x01\xc3\x07")
    (1, True, b'\x07')
    """
    try:
        call_id, is_answer, content = _decode_reply(frame)
    except _DECODING_ERRORS as error:
        raise StoreUnavailable(f"a frame of {len(frame)} bytes is not a reply: {error}") from error
    return call_id, is_answer, bytes(content)


def error_of_reply(content: bytes) -> PersistError:
    """The error that a reply tells. Raises ValueError for what tells none."""
    return error_from_record(msgspec.msgpack.decode(content))


def hello_of(frame: bytes) -> Hello:
    """The hello that a client's first frame is.

    Args:
        frame: The body.

    Returns:
        The hello, of this version.

    Raises:
        InvalidRequest: If it is not one.
        StoreUnavailable: If the client speaks another version.
    """
    try:
        _check_version(msgspec.msgpack.decode(frame, type=_Version).wire, "client", "server")
        return msgspec.msgpack.decode(frame, type=Hello)
    except _DECODING_ERRORS as error:
        raise InvalidRequest(
            f"the first frame, of {len(frame)} bytes, is not a hello of version {WIRE_VERSION} of the wire: {error}"
        ) from error


def greeting_of(frame: bytes) -> Greeting:
    """The greeting that a server's first frame is.

    Args:
        frame: The body.

    Returns:
        The greeting, of this version.

    Raises:
        StoreUnavailable: If the server speaks another version, or no version of this wire.
        PersistError: What the server says instead of a greeting.
    """
    call_id, is_greeting, content = reply_of(frame)
    if not is_greeting:
        try:
            error = error_of_reply(content)
        except (ValueError, RecursionError) as trouble:
            raise StoreUnavailable(f"the server refuses this client, and does not say why: {trouble}") from trouble
        raise error
    try:
        if call_id != 0:
            raise ValueError(f"it replies to call {call_id}")
        _check_version(msgspec.msgpack.decode(content, type=_Version).wire, "server", "client")
        return msgspec.msgpack.decode(content, type=Greeting)
    except _DECODING_ERRORS as error:
        raise StoreUnavailable(
            f"the server's first frame is not a greeting of version {WIRE_VERSION} of the wire: {error}: use the same "
            "release of persist-effects on both sides"
        ) from error


def _check_version(version: int, peer: str, own: str) -> None:
    if version != WIRE_VERSION:
        raise StoreUnavailable(
            f"the {peer} speaks version {version} of the wire, and this {own} version {WIRE_VERSION}: use the same "
            "release of persist-effects on both sides"
        )
