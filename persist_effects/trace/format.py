r"""Traces as values, as bytes, and as lines.

The bytes are a line, ``persist-effects trace 2``, a digest of 8 bytes over what follows, and msgpack: the version of
the package, the requests, what each was answered with or met, and which of these are errors. The lines are JSON, and
values stand in them as `persist_effects.json_values` says::

    {"format":"persist-effects-trace","version":2,"package":"0.1.0","requests":2}
    {"request":{"op":"persist/kv-put","key":"color","value":"red","expected":null},"answer":1}
    {"request":{"op":"shop/fetch-price","sku":"tea"},"error":["RecordedError","shop.SoldOut","no tea"]}

The digest, and the number of requests, tell of a trace that was cut.
"""

from collections.abc import Collection, Iterator, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from persist_effects.codec import check_ops
from persist_effects.errors import InvalidRequest, RecordedError, text_of
from persist_effects.json_values import decode_line, from_json, to_json
from persist_effects.requests import AllOf, Answered, Failed, Outcome, Request
from persist_effects.trace.errors import NO_ERROR_KINDS, ErrorKinds, decode_error, errors_by_name
from persist_effects.trace.values import (
    STORE_REQUESTS,
    Kinds,
    UnknownRequest,
    decode,
    decode_answer,
    decode_request,
    encode,
    has_mark,
    is_frozen,
    shown,
    with_mark,
)
from persist_effects.version import __version__

VERSION = 2
"""The version of the format. A trace of a newer one is refused; an older one is read.

In version 1 a `Conflict` said neither whether it was about a stream or a key, nor which write met it.
"""

LINES_FORMAT = "persist-effects-trace"

MUST_DECODE: Any = object()
"""Stands in `Trace.shared` for an answer that was not read yet."""

_MAGIC = b"persist-effects trace "
_DIGEST_BYTES = 8
_DIGITS_LIMIT = 10
_NO_KINDS: Kinds = {}

_Body = tuple[str, list[msgspec.Raw], list[msgspec.Raw], frozenset[int]]


class Recorded(msgspec.Struct, frozen=True):
    """A request, and what came of it."""

    request: Request[Any] | UnknownRequest
    outcome: Outcome

    def __str__(self) -> str:
        return f"{shown(self.request)} {outcome_text(self.outcome)}"


class Trace:
    """The requests that a program performed, with their answers or errors, in order: `persist_effects.trace.record`.

    ``trace[k]`` is the k-th request, from 0, with its outcome; `len` and iteration work as on a list. A trace cannot
    be changed, and is equal to another of the same requests and outcomes. ``kinds`` are the types of your own
    requests by their ``op``; those of a trace that was decoded stand in it as `UnknownRequest`, unless you name them.
    ``errors`` are the classes of other packages' errors by their names; those of a trace that was decoded come back
    as `RecordedError`, unless you name them. ``source`` is the file that it was read from, for messages.
    """

    __slots__ = (
        "_is_masked",
        "_met",
        "_ops",
        "_shared",
        "errors",
        "failed",
        "kinds",
        "outcomes",
        "package_version",
        "requests",
        "source",
    )

    def __init__(
        self,
        requests: Sequence[bytes],
        outcomes: Sequence[bytes],
        failed: Collection[int],
        kinds: Kinds = _NO_KINDS,
        package_version: str = __version__,
        *,
        errors: ErrorKinds = NO_ERROR_KINDS,
    ) -> None:
        self.requests = tuple(requests)
        self.outcomes = tuple(outcomes)
        self.failed = frozenset(failed)
        self.kinds = kinds
        self.package_version = package_version
        self.errors = errors
        self.source = ""
        self._shared: list[Any] | None = None
        self._is_masked: bool | None = None
        self._met: set[type] = set(STORE_REQUESTS)
        self._ops: dict[str, type[Request[Any]]] = dict(kinds)

    def __len__(self) -> int:
        return len(self.requests)

    def __getitem__(self, index: int) -> Recorded:
        request = self.request(index, self.kinds)
        return Recorded(request, self.outcome(index % len(self), request))

    def __iter__(self) -> Iterator[Recorded]:
        return map(self.__getitem__, range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        mine, theirs = (self.requests, self.outcomes, self.failed), (other.requests, other.outcomes, other.failed)
        return mine == theirs

    def __hash__(self) -> int:
        return hash((self.requests, self.outcomes))

    def __repr__(self) -> str:
        return f"<Trace of {len(self)} requests>"

    def __reduce__(self) -> tuple[Any, tuple[bytes]]:
        return Trace.decode, (self.encode(),)

    def first(self, count: int) -> "Trace":
        """The trace of the first requests alone.

        Args:
            count: How many.

        Returns:
            The shorter trace.
        """
        failed = {index for index in self.failed if index < count}
        first = Trace(
            self.requests[:count],
            self.outcomes[:count],
            failed,
            self.kinds,
            self.package_version,
            errors=self.errors,
        )
        first.source = self.source
        return first

    @property
    def is_masked(self) -> bool:
        """Whether something was left out of it, so that it cannot be replayed: `persist_effects.trace.masked`."""
        if self._is_masked is None:
            self._is_masked = any(map(has_mark, (*self.requests, *self.outcomes)))
        return self._is_masked

    def request(self, index: int, kinds: Kinds) -> Request[Any] | UnknownRequest:
        """The request at an index, of its type where that is a store's or among these."""
        try:
            return decode_request(self.requests[index], kinds)
        except InvalidRequest as error:
            raise self._damaged(index, error) from error

    def outcome(self, index: int, request: Request[Any] | UnknownRequest) -> Outcome:
        """What came of the request at an index, fresh. Its answer is typed as the request says."""
        try:
            if has_mark(self.outcomes[index]):
                plain = with_mark(decode(self.outcomes[index]))
                return Failed(_masked_error(plain)) if index in self.failed else Answered(plain)
            if index in self.failed:
                return Failed(decode_error(self.outcomes[index], self.errors))
            return Answered(decode_answer(request, self.outcomes[index], self.errors))
        except InvalidRequest as error:
            raise self._damaged(index, error) from error

    def _damaged(self, index: int, error: InvalidRequest) -> InvalidRequest:
        return InvalidRequest(f"{self.source}{': ' if self.source else ''}request {index} of the trace: {error}")

    # What replays need for each request stands in a list, so that the fastest of them spend a look-up on it.

    @property
    def shared(self) -> list[Any]:
        """The answers that were read before and cannot change, `MUST_DECODE` in the place of the others."""
        if self._shared is None:
            self._shared = [MUST_DECODE] * len(self)
        return self._shared

    def fresh_outcome(self, index: int, request: Request[Any]) -> Outcome:
        """What came of a request, kept in `shared` if it cannot change.

        Raises `InvalidRequest` where its class is not the one that was recorded, and only has the same tag.
        """
        # Runs for every answer that is read for the first time.
        if type(request) not in self._met:
            self._meet(request)
        if index in self.failed:
            return self.outcome(index, request)
        try:
            answer = decode_answer(request, self.outcomes[index], self.errors)
        except InvalidRequest as error:
            raise self._damaged(index, error) from error
        if is_frozen(answer):
            self.shared[index] = answer
        return Answered(answer)

    def _meet(self, request: Request[Any]) -> None:
        if isinstance(request, AllOf):
            for part in request.requests:
                self._meet(part)
            return
        kind = type(request)
        known = self._ops.setdefault(request.op, kind)
        # A class that was made anew, because its module was, is the same one.
        if (known.__module__, known.__qualname__) != (kind.__module__, kind.__qualname__):
            check_ops("the trace and its program", (known, kind))
        self._met.add(kind)

    # Bytes

    def encode(self) -> bytes:
        """The trace as bytes.

        Returns:
            The bytes, for `decode`.

        >>> from persist_effects import kv
        >>> from persist_effects.requests import KvHas
        >>> from persist_effects.trace import record
        >>> _, trace = record(kv.has("color"), {KvHas: lambda request: True})
        >>> Trace.decode(trace.encode()) == trace
        True
        """
        requests, outcomes = [*map(msgspec.Raw, self.requests)], [*map(msgspec.Raw, self.outcomes)]
        body = encode((self.package_version, requests, outcomes, sorted(self.failed)))
        return b"%s%d\n%s%s" % (_MAGIC, VERSION, _digest(body), body)

    @staticmethod
    def decode(
        data: bytes, kinds: Collection[type[Request[Any]]] = (), errors: Collection[type[Exception]] = ()
    ) -> "Trace":
        """The trace that `encode` made these bytes of.

        Args:
            data: The bytes.
            kinds: The types of your own requests in it.
            errors: The classes of errors that are to come back as what they were. Those of Python and of this package
                need not be named.

        Returns:
            The trace.

        Raises:
            InvalidRequest: If they are not a trace, are damaged or cut, or of a newer version.

        >>> Trace.decode(b"persist-effects trace 7")
        Traceback (most recent call last):
        persist_effects.errors.InvalidRequest: the trace has version 7, and this package reads up to 2: use a newer ...
        """
        if not data.startswith(_MAGIC):
            raise InvalidRequest(f"these {len(data)} bytes are not a trace: {data[:20]!r}")
        version, _, rest = data[len(_MAGIC) :].partition(b"\n")
        _check_version(int(version) if version.isdigit() and len(version) < _DIGITS_LIMIT else None)
        digest, body = rest[:_DIGEST_BYTES], rest[_DIGEST_BYTES:]
        if digest != _digest(body):
            raise InvalidRequest(f"a trace of {len(data)} bytes is damaged, or was cut: its digest is another one")
        try:
            package_version, requests, outcomes, failed = msgspec.msgpack.decode(body, type=_Body)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"a trace of {len(data)} bytes does not decode: {error}") from error
        if len(requests) != len(outcomes) or not all(0 <= index < len(requests) for index in failed):
            raise InvalidRequest(
                f"a trace of {len(data)} bytes does not decode: it has {len(requests)} requests, {len(outcomes)} "
                f"outcomes, and errors at {shown(sorted(failed))}"
            )
        encoded = [*map(bytes, requests)], [*map(bytes, outcomes)]
        return Trace(*encoded, failed, known_kinds(kinds), package_version, errors=errors_by_name(errors))

    # Lines

    def to_json_lines(self) -> str:
        r"""The trace as lines to read: a header, then each request with its answer or error.

        Returns:
            The lines.

        >>> from persist_effects import kv
        >>> from persist_effects.requests import KvHas
        >>> from persist_effects.trace import record
        >>> _, trace = record(kv.has("color"), {KvHas: lambda request: True})
        >>> print(trace.to_json_lines().splitlines()[1])
        {"request":{"op":"persist/kv-has","key":"color"},"answer":true}
        """
        header = {
            "format": LINES_FORMAT,
            "version": VERSION,
            "package": self.package_version,
            "requests": len(self),
        }
        lines = [header, *map(self._line, range(len(self)))]
        return "".join(msgspec.json.encode(line).decode() + "\n" for line in lines)

    def _line(self, index: int) -> dict[str, Any]:
        outcome = "error" if index in self.failed else "answer"
        try:
            return {"request": _to_json(self.requests[index]), outcome: _to_json(self.outcomes[index])}
        except InvalidRequest as error:
            raise self._damaged(index, error) from error

    @staticmethod
    def from_json_lines(
        text: str, kinds: Collection[type[Request[Any]]] = (), errors: Collection[type[Exception]] = ()
    ) -> "Trace":
        r"""The trace that `to_json_lines` wrote.

        Args:
            text: The lines.
            kinds: The types of your own requests in it.
            errors: The classes of errors that are to come back as what they were. Those of Python and of this package
                need not be named.

        Returns:
            The trace.

        Raises:
            InvalidRequest: If it would not write so, by the line; if lines were cut, or are of a newer version.

        >>> Trace.from_json_lines('{"format":"persist-effects-trace","version":1,"package":"0.1.0","requests":3}\n')
        Traceback (most recent call last):
        persist_effects.errors.InvalidRequest: the trace has 0 of its 3 requests: it was cut
        """
        # Not splitlines(), which splits at characters that stand in texts.
        first, *lines = text.rstrip("\n").split("\n")
        header = _decode_line(1, first)
        if header.get("format") != LINES_FORMAT:
            raise InvalidRequest(f'line 1: this is not a trace: expected {{"format":"{LINES_FORMAT}", …}}')
        _check_version(header.get("version"))
        requests, outcomes, failed = list[bytes](), list[bytes](), set[int]()
        for index, line in enumerate(lines):
            request, outcome, is_failed = _read_line(index + 2, line)
            requests.append(request)
            outcomes.append(outcome)
            if is_failed:
                failed.add(index)
        if header.get("requests") != len(lines):
            raise InvalidRequest(f"the trace has {len(lines)} of its {header.get('requests')} requests: it was cut")
        package = str(header.get("package"))
        return Trace(requests, outcomes, failed, known_kinds(kinds), package, errors=errors_by_name(errors))


def by_op(kinds: Collection[type[Request[Any]]]) -> Kinds:
    """Types of requests by their ``op``."""
    return {str(kind.__struct_config__.tag): kind for kind in kinds}


def known_kinds(kinds: Collection[type[Request[Any]]]) -> Kinds:
    """Types of requests by their ``op``. Raises `InvalidRequest` for what is none, and for two of one ``op``."""
    check_ops("the kinds of a trace", kinds)
    return by_op(kinds)


def outcome_text(outcome: Outcome) -> str:
    """What came of a request, to stand behind it.

    >>> outcome_text(Answered(3)), outcome_text(Failed(KeyError("tea")))
    ('→ 3', "raises KeyError: 'tea'")
    """
    if isinstance(outcome, Answered):
        return f"→ {shown(outcome.value)}"
    return f"raises {type(outcome.error).__name__}: {text_of(outcome.error)}".removesuffix(": ")


def _masked_error(record: list[Any]) -> RecordedError:
    """An error of which something was left out."""
    name, *rest = record[1:] if record[0] == RecordedError.__name__ else record
    return RecordedError(name, ", ".join(map(repr, rest)))


def _digest(body: bytes) -> bytes:
    return blake2b(body, digest_size=_DIGEST_BYTES).digest()


def _check_version(version: object) -> None:
    if type(version) is not int:
        raise InvalidRequest("the trace has no version: its first line was cut or damaged")
    if not 1 <= version <= VERSION:
        raise InvalidRequest(
            f"the trace has version {version}, and this package reads up to {VERSION}: use a newer persist-effects"
        )


def _to_json(encoded: bytes) -> Any:
    return to_json(decode(encoded))


def _decode_line(number: int, line: str) -> dict[str, Any]:
    try:
        fields = decode_line(line)
    except InvalidRequest as error:
        raise InvalidRequest(f"line {number}: {error}: the trace was cut or damaged") from error
    if not isinstance(fields, dict):
        raise InvalidRequest(f"line {number}: expected a JSON object")
    return fields


def _read_line(number: int, line: str) -> tuple[bytes, bytes, bool]:
    """A line's request, its outcome, and whether that is an error."""
    fields = _decode_line(number, line)
    if fields.keys() not in ({"request", "answer"}, {"request", "error"}):
        raise InvalidRequest(f'line {number}: expected {{"request": …, "answer": …}} or {{"request": …, "error": …}}')
    is_failed = "error" in fields
    try:
        request = encode(from_json(fields["request"]))
        outcome = encode(from_json(fields["error" if is_failed else "answer"]))
        decode_request(request)
        if is_failed and not has_mark(outcome):
            decode_error(outcome)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidRequest(f"line {number}: {error}") from error
    return request, outcome, is_failed
