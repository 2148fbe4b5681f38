"""Every error a program can meet, told apart by whose move it is.

=====================  ==============================================================
class                  what it says, and whose move it is
=====================  ==============================================================
``CallerError``        the request or program is wrong, and the request did nothing. Mend it.
``StoreUnavailable``   the store cannot be reached or used now; nothing was written.
``UncertainOutcome``   a commit was on its way when the store was lost. Ask again.
``CorruptStore``       what was stored is damaged. Stop, and look at the store.
``InternalError``      a bug of this project. Report it.
=====================  ==============================================================

A conflict is none of these: it is a value, `persist_effects.requests.Conflict`.

An error's ``args`` are its constructor's arguments, plain values all, so that an error can be pickled, sent to
another process and rebuilt there.
"""

from typing import Any


class PersistError(Exception):
    """The base of every error in this package."""


class CallerError(PersistError):
    """What was asked for cannot be. The request that met this wrote nothing; what was written before it stands."""


class InvalidRequest(CallerError, ValueError):
    """A request, name or value breaks a rule of this package, and was refused before it was written.

    >>> from persist_effects import log
    >>> next(log.append("", "placed", None))
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: stream name is empty: a name has 1 to 512 bytes of UTF-8
    """


class TooLarge(InvalidRequest):
    """One event's data or meta, or one key's value, is larger than the store accepts. Nothing was written."""

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(what, size_bytes, limit_bytes)
        self.what = what
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes

    def __str__(self) -> str:
        return (
            f"{self.what} takes {self.size_bytes} bytes, the store's limit is {self.limit_bytes}: "
            "put the bytes into a blob store and keep the reference, or open the store with a higher limit"
        )


class SqlFailed(InvalidRequest):
    """An SQL statement failed in the database. Nothing of its transaction was written.

    ``statement`` is its text, ``reason`` what the database says.
    """

    def __init__(self, statement: str, reason: str) -> None:
        super().__init__(statement, reason)
        self.statement = statement
        self.reason = reason

    def __str__(self) -> str:
        return f"SQL {repr_of(self.statement, 400)} failed: {self.reason}"


class UnhandledEffect(CallerError):
    """A program performed a request that no row of the handler table answers. Raised at the guilty ``yield``.

    ``kind`` is the name of the request's class.
    """

    def __init__(self, op: str, kind: str = "…") -> None:
        super().__init__(op, kind)
        self.op = op
        self.kind = kind

    def __str__(self) -> str:
        return (
            f"no handler answers {self.op!r}: give the store a row for it, "
            f"`open_store(url, effects={{{self.kind}: …}})`, or add one to the handler table"
        )


class NotARequest(CallerError, TypeError):
    """A program yielded what is not a `Request`. Raised at the guilty ``yield``. ``advice``: what to write."""

    def __init__(self, found: str, advice: str = "write `yield from perform(request)`") -> None:
        super().__init__(found, advice)
        self.found = found
        self.advice = advice

    def __str__(self) -> str:
        return f"a program yielded {self.found}, which is not a Request: {self.advice}"


class NotAProgram(CallerError, TypeError):
    """What was given to run is not a fresh program, or a program returned one that it should have run.

    A program is a generator, made by calling a generator function.
    """


class AlreadyUsed(CallerError):
    """A program was started twice, or a `Suspended` was resumed, thrown into or closed twice."""


class Spinning(CallerError):
    """A program was refused the same request again and again, and asks for it again: it was given up.

    ``program`` is its name, ``request`` what it asks for, ``refusal`` the error that it met each time, ``source``
    where it stands, ``times`` how often.
    """

    def __init__(self, program: str, request: str, refusal: str, source: str, times: int) -> None:
        super().__init__(program, request, refusal, source, times)
        self.program = program
        self.request = request
        self.refusal = refusal
        self.source = source
        self.times = times

    def __str__(self) -> str:
        return (
            f"the program {self.program!r} would go on for ever: {self.times:,} times in a row it was refused "
            f"{self.request}, and it asks again: let the error leave the loop that catches it\n"
            f"  the error: {self.refusal}\n"
            f"  source:    {self.source}"
        )


class InvalidAnswer(CallerError, TypeError):
    """A row answered with something else than its request promises. Only checked in explorations and tests.

    ``request`` is what was asked, ``kind`` the name of its class, ``row`` that of the function, ``found`` what it
    answered, ``expected`` the type that it should have had.
    """

    def __init__(self, request: str, kind: str, row: str, found: str, expected: str) -> None:
        super().__init__(request, kind, row, found, expected)
        self.request = request
        self.kind = kind
        self.row = row
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        return (
            f"the row for {self.kind}, {self.row}, answered {self.request} with {self.found}: its class is a "
            f"Request[{self.expected}], so answer with that, or change the class"
        )


class Truncated(CallerError):
    """Events that were asked for, or that a fold needs, were dropped by truncation.

    ``first_left`` is the first sequence number of the stream that is still there, or will be given next.
    """

    def __init__(self, stream: str, first_left: int) -> None:
        super().__init__(stream, first_left)
        self.stream = stream
        self.first_left = first_left

    def __str__(self) -> str:
        return (
            f"stream {self.stream!r} was truncated: the first event left is {self.first_left}, and earlier ones are "
            "needed here: start from a snapshot or checkpoint that covers them"
        )


class FollowersBehind(CallerError):
    """Events were to be dropped that followers have not seen. Nothing was dropped.

    ``seq`` is through which one of ``stream``, ``seen`` through which one all followers have seen it, and
    ``followers`` are the names of those that have not seen more.
    """

    def __init__(self, stream: str, seq: int, seen: int, followers: list[str]) -> None:
        super().__init__(stream, seq, seen, followers)
        self.stream = stream
        self.seq = seq
        self.seen = seen
        self.followers = followers

    def __str__(self) -> str:
        names = ", ".join(map(repr, self.followers))
        return (
            f"stream {self.stream!r} was to be truncated through event {self.seq}, and has been seen only through "
            f"event {self.seen} by {'follower' if len(self.followers) == 1 else 'the followers'} {names}: let them "
            "follow first, truncate with unseen='keep' as far as all have seen it, or have those forgotten that "
            "nobody runs any more: `persist-effects follower forget URL NAME`"
        )


class BlobNotFound(CallerError, LookupError):
    """The blob store holds no bytes under this content identifier."""

    def __init__(self, cid: str) -> None:
        super().__init__(cid)
        self.cid = cid

    def __str__(self) -> str:
        return f"no blob {self.cid!r} in the blob store: put its bytes there first, or ask the store that has them"


class SchemaMismatch(CallerError):
    """An event does not decode as the type that the schema names for it."""

    def __init__(self, stream: str, seq: int, event_type: str, reason: str) -> None:
        super().__init__(stream, seq, event_type, reason)
        self.stream = stream
        self.seq = seq
        self.event_type = event_type
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"event {self.seq} of stream {self.stream!r}, type {self.event_type!r}, does not fit the schema: "
            f"{self.reason}: give a new field a default, a changed one an upcaster, and a new event type a class"
        )


class ValueMismatch(CallerError):
    """A key's value is not of the type as which it was to be read.

    ``key`` is the key, ``type`` the name of the type, ``found`` what is there, ``reason`` where it does not fit.
    """

    def __init__(self, key: str, type: str, found: str, reason: str) -> None:
        super().__init__(key, type, found, reason)
        self.key = key
        self.type = type
        self.found = found
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"key {self.key!r} was to be read as {self.type}, and its value is {self.found}: {self.reason}: read it as "
            "the type that it has, or put one that fits"
        )


class SnapshotMismatch(CallerError):
    """A snapshot stands for events that were dropped, and this program cannot use it. It was left as it is.

    ``name`` is the snapshot's, ``stream`` that of which it is; ``kept_version`` is the version of the fold that made
    it, ``version`` this program's; ``seq`` is the sequence number that it reaches.
    """

    # The arguments are those of the record that goes to another process, so they stand one by one.
    def __init__(  # noqa: PLR0917
        self, name: str, stream: str | None, kept_version: int, version: int, seq: int, reason: str
    ) -> None:
        super().__init__(name, stream, kept_version, version, seq, reason)
        self.name = name
        self.stream = stream
        self.kept_version = kept_version
        self.version = version
        self.seq = seq
        self.reason = reason

    def __str__(self) -> str:
        if self.kept_version > self.version:
            advice = f"run the release that has version {self.kept_version}"
        elif self.kept_version < self.version:
            advice = f"give `lift={{{self.kept_version}: f}}`, f(value that is kept) -> the next version's state"
        else:
            advice = (
                f"give `version={self.version + 1}` and `lift={{{self.version}: f}}`, f(value that is kept) -> state"
            )
        return (
            f"snapshot {self.name!r} of stream {self.stream!r} has version {self.kept_version}, through event "
            f"{self.seq}, and cannot be used by version {self.version}: {self.reason}. Its events were dropped, so it "
            f"is the only copy, and was left as it is: {advice}"
        )


class Diverged(CallerError):
    """A program performs other requests than its trace has, so it is not the program that was recorded.

    ``index`` is that of the first request that differs, from 0. ``expected`` and ``actual`` say what the trace has
    there and what the program did, ``source`` where the program stands, ``last_match`` what agreed last. ``hint``
    tells of errors before that came back as `RecordedError`, which the program may have passed by for that.
    """

    def __init__(  # noqa: PLR0917 - an error is made of its `args`
        self, index: int, expected: str, actual: str, source: str, last_match: str, hint: str = ""
    ) -> None:
        super().__init__(index, expected, actual, source, last_match, *([hint] if hint else ()))
        self.index = index
        self.expected = expected
        self.actual = actual
        self.source = source
        self.last_match = last_match
        self.hint = hint

    def __str__(self) -> str:
        hint = f"\n  hint:       {self.hint}" if self.hint else ""
        return (
            f"the program diverges from its trace at request {self.index}: record anew what was changed on purpose\n"
            f"  expected:   {self.expected}\n"
            f"  actual:     {self.actual}\n"
            f"  source:     {self.source}\n"
            f"  last match: {self.last_match}{hint}"
        )


class Cancelled(BaseException):
    """A flow, or a branch of one, was cancelled. Raised where it waits, so that its ``finally`` blocks run.

    What these perform is performed and kept, as ever. One that catches this, and returns, has ended with its value.
    """


class FlowContinued(BaseException):
    """A flow goes on as a new run of itself, with these arguments: see `persist_effects.flow.continue_as_new`."""


class Nondeterministic(CallerError):
    """A flow's code does not do what its journal says that it did. It was halted, and goes on once the code is right.

    ``flow_id``; ``expected``: what the journal has; ``actual``: what the code did; ``source``: where in the code that
    is; ``last_match``: the step before.
    """

    def __init__(self, flow_id: str, expected: str, actual: str, source: str, last_match: str) -> None:
        super().__init__(flow_id, expected, actual, source, last_match)
        self.flow_id = flow_id
        self.expected = expected
        self.actual = actual
        self.source = source
        self.last_match = last_match

    def __str__(self) -> str:
        return (
            f"flow {self.flow_id!r} no longer does what its journal says: bring back the code that it began with, give "
            "the new code another version, or ask flow.patched(change) around what was changed; it is halted until "
            f"then, and nothing of it is lost\n  expected:   {self.expected}\n  actual:     {self.actual}\n"
            f"  source:     {self.source}\n  last match: {self.last_match}"
        )


class FlowExists(CallerError):
    """There is another flow of this id: of other code, or of other arguments. Nothing was begun.

    ``flow_id``; ``expected``: what was to be begun; ``found``: what is there.
    """

    def __init__(self, flow_id: str, expected: str, found: str) -> None:
        super().__init__(flow_id, expected, found)
        self.flow_id = flow_id
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"flow {self.flow_id!r} is {self.found}, and not {self.expected}: give yours another id"


class NoSuchFlow(CallerError, LookupError):
    """There is no flow of this id, or it has ended where one that goes on was asked for.

    ``flow_id``; ``what``: what there is instead.
    """

    def __init__(self, flow_id: str, what: str = "it was never begun") -> None:
        super().__init__(flow_id, what)
        self.flow_id = flow_id
        self.what = what

    def __str__(self) -> str:
        return f"there is no flow {self.flow_id!r} that goes on: {self.what}"


class FlowFailed(PersistError):
    """A flow has ended with an error, or was cancelled. The error that it raised is the cause of this one.

    ``flow_id``; ``reason``: the error in words.
    """

    def __init__(self, flow_id: str, reason: str) -> None:
        super().__init__(flow_id, reason)
        self.flow_id = flow_id
        self.reason = reason

    def __str__(self) -> str:
        return f"flow {self.flow_id!r} {self.reason}"


class OwnershipLost(PersistError):
    """Another host has taken a flow over, so this one writes nothing more to its journal.

    ``flow_id``; ``seq``: the entry that was to be written.
    """

    def __init__(self, flow_id: str, seq: int) -> None:
        super().__init__(flow_id, seq)
        self.flow_id = flow_id
        self.seq = seq

    def __str__(self) -> str:
        return (
            f"flow {self.flow_id!r} was taken over by another host, which has written entry {self.seq} of its journal: "
            "this one has let go of it"
        )


class SubjectForgotten(CallerError):
    """Something was to be written about a subject that was forgotten. Nothing was written.

    ``forgotten_at`` is when, in microseconds since 1970, UTC.
    """

    def __init__(self, subject: str, forgotten_at: int) -> None:
        super().__init__(subject, forgotten_at)
        self.subject = subject
        self.forgotten_at = forgotten_at

    def __str__(self) -> str:
        return (
            f"subject {self.subject!r} was forgotten at {self.forgotten_at} (microseconds since 1970, UTC), and this "
            "would write about it: stop writing, or, where it has come back, perform encryption.admit(subject) first"
        )


class UnknownSubject(CallerError, LookupError):
    """A subject was to be forgotten, or given another key, about which nothing was ever written."""

    def __init__(self, subject: str) -> None:
        super().__init__(subject)
        self.subject = subject

    def __str__(self) -> str:
        return (
            f"nothing was ever written about the subject {self.subject!r}, so that the key store has no key of it: "
            "give the name as subject_of(stream) returns it, and open the key store that belongs to this store"
        )


class StoreUnavailable(PersistError):
    """The store cannot be reached or used now. Nothing was written by the request that met this."""


class StoreClosed(StoreUnavailable):
    """The store was closed, and then used."""


class StoreLocked(StoreUnavailable):
    """Another process writes to this store, or this one has it open already.

    ``holder`` says who, ``store`` which it is, ``opened_at`` where in this process, if it is this one.
    """

    def __init__(self, holder: str, store: str = "the store", opened_at: str | None = None) -> None:
        # Two arguments as ever, where there is no third to tell: so older programs can read it.
        super().__init__(holder, store, *(() if opened_at is None else (opened_at,)))
        self.holder = holder
        self.store = store
        self.opened_at = opened_at

    def __str__(self) -> str:
        if self.opened_at is not None:
            return f"this process has {self.store} open already, at {self.opened_at}: close that one, or use it"
        return (
            f"{self.store} is open for writing elsewhere, by {self.holder}: close it there, open it here with mode=r "
            "to read only, or open it everywhere with share=yes"
        )


class NewerFormat(StoreUnavailable):
    """A newer release wrote this store, in a format that this one cannot read. It is not damaged, and was left alone.

    ``file`` is the one that says so, ``found`` its format's version, ``known`` the newest that this release reads.
    """

    def __init__(self, file: str, found: int, known: int) -> None:
        super().__init__(file, found, known)
        self.file = file
        self.found = found
        self.known = known

    def __str__(self) -> str:
        return (
            f"{self.file}: format version {self.found}, and this release reads up to {self.known}: the store is not "
            "damaged, a newer release wrote it: use that one, or a newer one still"
        )


class UncertainOutcome(PersistError):
    """The store was lost in the middle of a commit: it is written whole or not at all, and which is not known.

    ``log.append_once`` and ``log.append_expect``, performed again, settle it.
    """


class CorruptStore(PersistError):
    """What was stored is damaged: wrong bytes were found, and nothing was made of them."""


class KeyLost(CorruptStore):
    """What was stored is encrypted under a key that the key store does not have, though nobody deleted it.

    ``where`` says what was to be read, ``key_id`` is the key's, ``reason`` what was found in its place.
    """

    def __init__(self, where: str, key_id: str, reason: str) -> None:
        super().__init__(where, key_id, reason)
        self.where = where
        self.key_id = key_id
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"{self.where} is encrypted under the key {self.key_id}, and {self.reason}: nothing was made of it. Open "
            "the key store that belongs to this store, with its master key, or restore it from a backup"
        )


class InternalError(PersistError):
    """A bug of this project, or of a handler in the process that served the request. Please report it."""


class Abandoned(BaseException):
    """Raised where a program waits that is given up, because one that ran together with it failed.

    Its ``finally`` blocks run, and may perform requests. No error that a program should handle, so ``except
    Exception`` lets it pass; and no ``GeneratorExit``, after which Python lets nested generators yield no more.
    """


class RecordedError(Exception):
    """Stands in a replay for an error of another package: ``kind`` is its class's name, ``text`` what it said.

    It is not a `PersistError`, as the error was none.

    >>> raise RecordedError("shop.SoldOut", "no tea")
    Traceback (most recent call last):
    persist_effects.errors.RecordedError: shop.SoldOut: no tea
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind
        self.text = text

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}".removesuffix(": ")


def repr_of(value: object, limit: int = 80) -> str:
    """The beginning of a value's ``repr``, as error messages show it, whatever the value is.

    >>> repr_of(["tea"]), repr_of("x" * 100, 6)
    ("['tea']", "'xxxxx")
    """
    try:
        return repr(value)[:limit]
    except RecursionError:
        return f"<{describe_type(value)} that is nested too deep to show>"
    except Exception as error:  # a message must not fail for what it shows
        return f"<{describe_type(value)}, whose repr raises {type(error).__name__}>"


def text_of(error: BaseException) -> str:
    r"""What an error says, as text that can be encoded, whatever its arguments are.

    >>> text_of(ValueError("no tea")), text_of(ValueError("\ud800"))
    ('no tea', '\\ud800')
    """
    try:
        text = str(error)
    except RecursionError:
        text = "its arguments are nested too deep to show"
    return text.encode(errors="backslashreplace").decode()


def describe_type(value: object) -> str:
    """How error messages call what a value is.

    >>> describe_type(7), describe_type("x"), describe_type(None)
    ('an int', 'a str', 'None')
    """
    if value is None:
        return "None"
    name = type(value).__name__
    return f"{'an' if name[0] in 'AEIOaeio' else 'a'} {name}"


def describe(value: object) -> str:
    """How error messages call a value that is not what it should be.

    >>> describe(7), describe(None)
    ('an int, 7', 'None')
    """
    return "None" if value is None else f"{describe_type(value)}, {repr_of(value)}"


def name_of_type(wanted: Any) -> str:
    """How error messages call a type.

    >>> name_of_type(int), name_of_type(list[int]), name_of_type(int | None)
    ('int', 'list[int]', 'int | None')
    """
    # A `list[int]` has the `__name__` of `list`, and an `int | None` has none.
    is_plain_class = isinstance(wanted, type) and not hasattr(wanted, "__args__")
    return wanted.__name__ if is_plain_class else str(wanted).replace("typing.", "")


_BY_NAME: dict[str, type[PersistError]] = {
    kind.__name__: kind for kind in list(vars().values()) if isinstance(kind, type) and issubclass(kind, PersistError)
}


def error_class(name: str) -> type[PersistError] | None:
    """The class of this package's errors that has this name, or None.

    >>> error_class("Truncated").__name__, error_class("KeyError")
    ('Truncated', None)
    """
    return _BY_NAME.get(name)


def error_to_record(error: Exception) -> list[Any]:
    """An error as plain values, for another process: its class's name, then its arguments.

    Where these are not plain values, its text stands for them. One of a class derived from this package's becomes the
    nearest of these that a text alone makes, and any other an `InternalError`; both name the class that it had.

    >>> error_to_record(Truncated("orders/7", 12))
    ['Truncated', 'orders/7', 12]
    >>> error_to_record(KeyError("tea"))
    ['InternalError', "KeyError: 'tea'"]
    """
    kind = type(error)
    if _BY_NAME.get(kind.__name__) is kind and is_plain([*error.args]):
        return [kind.__name__, *error.args]
    text = text_of(error) if _BY_NAME.get(kind.__name__) is kind else f"{kind.__name__}: {text_of(error)}"
    for base in kind.__mro__:
        if _BY_NAME.get(base.__name__) is base and _says(base, text):
            return [base.__name__, text]
    return [InternalError.__name__, text]


def _says(kind: Any, text: str) -> bool:
    try:
        return str(kind(text)) == text
    except TypeError:
        return False


_PLAIN = frozenset({type(None), bool, float, bytes})


def is_plain(value: Any, depth_left: int = 20) -> bool:
    """Whether a value goes to another process and comes back as it was: an error's arguments, for instance.

    >>> is_plain(["orders/7", {"left": 12}, None]), is_plain((1, 2))
    (True, False)
    """
    kind = type(value)
    if kind is str:
        return bool(value == value.encode(errors="replace").decode())
    if kind is int:
        return -(2**63) <= int(value) < 2**64
    if kind is list and depth_left:
        return all(is_plain(part, depth_left - 1) for part in value)
    if kind is dict and depth_left:
        return all(type(key) is str and is_plain(key) and is_plain(part, depth_left - 1) for key, part in value.items())
    return kind in _PLAIN


def error_from_record(record: Any) -> PersistError:
    """The error that `error_to_record` made a record of. Raises ValueError for what it makes of none.

    An error whose class is not known here, because it is newer, is an `InternalError` that shows it.

    >>> error_from_record(["Truncated", "orders/7", 12]).first_left
    12
    >>> error_from_record(["Odd", 1])
    InternalError("unknown error 'Odd' with arguments [1]")
    """
    if not isinstance(record, list) or not record or not isinstance(record[0], str):
        raise ValueError(f"{repr_of(record)} is not a record of an error")
    name, *arguments = record
    kind = _BY_NAME.get(name)
    if kind is None:
        return InternalError(f"unknown error {name!r} with arguments {repr_of(arguments, 400)}")
    try:
        error = kind(*arguments)
        str(error)
    except (TypeError, ValueError, LookupError, AttributeError, RecursionError) as trouble:
        raise ValueError(f"{repr_of(record)} is not a record of an error: {trouble}") from trouble
    return error
