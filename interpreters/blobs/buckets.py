"""One bucket of JetStream's object store: its layout, and what is asked of its servers. Needs the extra ``nats``.

The layout is that of all clients of NATS, so that ``nats object get`` finds what is put here:

    stream OBJ_<bucket>
    $O.<bucket>.M.<name>      what an object is: JSON, its name in base64; only the last message counts
    $O.<bucket>.C.<nuid>      its bytes, a message for each chunk, in their order

An object that is put again gets a new nuid. Beside the chunks stand pieces that only this package knows:

    $O.<bucket>.C.<nuid>.digests.<n>    the digests below the nodes of the blob's tree, cut into pieces
    $O.<bucket>.C.<nuid>.places.<n>     for each chunk, eight bytes: from which sequence number on it is found

and beside the objects a deleted one, ``.barrier``, which is written to know that what is read is not too old.

All of it runs in the event loop of the connection. What is not answered is asked again, until the time is over.
"""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple, TypeVar

import msgspec

from interpreters.nats.connection import Denied, NatsConnection, Unanswered, failing, headers_in
from persist_effects.errors import CorruptStore, InvalidRequest, StoreUnavailable

A = TypeVar("A")

MESSAGE_BYTES = 262_144
"""How many bytes of an object are one message: a chunk of the blob. Servers take up to 1 MB unless told otherwise."""

EXPECTED = "Nats-Expected-Last-Subject-Sequence"
CHUNK_INDEX = "Persist-Effects-Chunk"
"""The header that says which chunk of its blob a message is."""

_MESSAGE_ID = "Nats-Msg-Id"
_ROLLUP = {"Nats-Rollup": "sub"}
_BARRIER = ".barrier"

_NO_MESSAGE = 10037
_NO_STREAM = 10059
_NO_JETSTREAM = frozenset({10039, 10076})
_NOT_ENOUGH_SERVERS = frozenset({10005, 10074})
_FULL = frozenset({10023, 10047, 10077})
_LASTING = _NO_JETSTREAM | _NOT_ENOUGH_SERVERS | _FULL
_WRONG_LAST = 10071
# Another write of the subject is on its way.
_NOT_YET = frozenset({10164})
# What servers say that have no leader yet, or too much to do.
_NOT_NOW = frozenset({429, 503})

_AGAIN_SECONDS = 0.05
_PAGE = 500
# The first one that gives several messages by one direct get.
_LEAST_VERSION = (2, 11)
_UNLIMITED = (None, 0, -1)
_NEEDED = {"allow_direct": True, "allow_rollup_hdrs": True}


class BucketRefused(Exception):
    """JetStream says no.

    Args:
        error: What it says.
    """

    def __init__(self, error: Mapping[str, Any]) -> None:
        super().__init__(str(error.get("description", error)))
        self.code = int(error.get("err_code", error.get("code", 0)))
        self.status = int(error.get("code", 0))

    @property
    def is_passing(self) -> bool:
        """Whether it may be asked again, and nothing was written."""
        return self.code in _NOT_YET or (self.status in _NOT_NOW and self.code not in _LASTING)


class BucketMessage(NamedTuple):
    """A message that a bucket keeps."""

    number: int
    subject: str
    body: bytes
    headers: Mapping[str, str]
    at: int
    """When it was written, by its server's clock, in microseconds since 1970, UTC."""


class NewMessage(NamedTuple):
    """A message that is to be written."""

    subject: str
    body: bytes
    headers: dict[str, str]


class BucketObject(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a bucket says of an object, in the words of the clients of NATS."""

    name: str
    bucket: str = ""
    nuid: str = ""
    size: int = 0
    chunks: int = 0
    mtime: str = ""
    digest: str = ""
    deleted: bool = False
    options: dict[str, Any] | None = None


class Bucket:
    """A bucket.

    Args:
        connection: To its servers.
        name: Its name.
        timeout_seconds: How long anything is asked again.
        may_write: Whether barriers are written.
    """

    def __init__(self, connection: NatsConnection, name: str, timeout_seconds: float, *, may_write: bool) -> None:
        self.name = name
        self.stream = f"OBJ_{name}"
        self.place = f"nats://{connection.where}/{name}"
        self._connection = connection
        self._timeout_seconds = timeout_seconds
        self._may_write = may_write
        self._begins = f"$O.{name}."

    # Subjects

    def subject_of(self, name: str) -> str:
        """Where it stands what an object is."""
        return f"{self._begins}M.{base64.urlsafe_b64encode(name.encode()).decode()}"

    def chunks_of(self, nuid: str) -> str:
        """Where the chunks of an object are."""
        return f"{self._begins}C.{nuid}"

    def piece_of(self, nuid: str, what: str, number: int) -> str:
        """Where a piece of what stands beside the chunks of an object is: of ``digests``, or of ``places``."""
        return f"{self._begins}C.{nuid}.{what}.{number}"

    # Making

    async def make(self, replicas: int | None) -> None:
        """Have the bucket, as blobs need it.

        Args:
            replicas: On how many servers it is to be; None: as it is, or on one.

        Raises:
            InvalidRequest: It is there with settings that do not fit, or this user may not have it.
            StoreUnavailable: It cannot be had.
        """
        version = self._connection.client.connected_server_version
        if (version.major, version.minor) < _LEAST_VERSION:
            raise StoreUnavailable(
                f"{self.place} is nats-server {version}, which cannot give several messages at once: use "
                f"{'.'.join(map(str, _LEAST_VERSION))} or newer"
            )
        if self._connection.client.max_payload < MESSAGE_BYTES + 4096:
            raise InvalidRequest(
                f"{self.place}: the servers take messages of {self._connection.client.max_payload} bytes, and a chunk "
                f"of a blob has {MESSAGE_BYTES}: raise max_payload there, its default is 1 MB"
            )
        try:
            found = await self._config()
            if found is None:
                await self._create(replicas or 1)
            else:
                await self._adapt(found, replicas)
        except BucketRefused as refused:
            raise self.told(refused) from refused

    async def look(self) -> None:
        """Raise where the bucket cannot be asked for. It need not be there."""
        try:
            await self._config()
        except BucketRefused as refused:
            raise self.told(refused) from refused

    async def _config(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = (await self.api(f"STREAM.INFO.{self.stream}"))["config"]
        except BucketRefused as refused:
            if refused.code == _NO_STREAM:
                return None
            raise
        return found

    async def _create(self, replicas: int) -> None:
        # Two at once ask for the same, which is no error.
        await self.api(
            f"STREAM.CREATE.{self.stream}",
            name=self.stream,
            subjects=self._subjects(),
            storage="file",
            retention="limits",
            discard="new",
            num_replicas=replicas,
            **_NEEDED,
        )

    async def _adapt(self, found: dict[str, Any], replicas: int | None) -> None:
        where = f"the bucket {self.name!r} is there"
        if sorted(found.get("subjects") or ()) != sorted(self._subjects()):
            raise InvalidRequest(f"{where} with the subjects {found.get('subjects')}: give the blobs another bucket")
        for setting, harm in (("max_age", "would drop what is old"), ("max_msgs", "would drop or refuse messages")):
            if found.get(setting) not in _UNLIMITED:
                raise InvalidRequest(f"{where} with {setting}={found[setting]}, which {harm}: give another bucket")
        for setting, wanted in (("storage", "file"), ("retention", "limits"), ("discard", "new")):
            if found.get(setting) != wanted:
                raise InvalidRequest(
                    f"{where} with {setting}={found.get(setting)}, and blobs need {wanted}: give another bucket"
                )
        if replicas is not None and found.get("num_replicas") != replicas:
            raise InvalidRequest(
                f"{where} on {found.get('num_replicas')} servers, and replicas={replicas} was given: leave it out, or "
                f"change it by `nats stream edit {self.stream} --replicas {replicas}`"
            )
        if found.get("sealed"):
            raise InvalidRequest(f"{where} and sealed, so that nothing can be put: open it to read only")
        missing = {setting: wanted for setting, wanted in _NEEDED.items() if found.get(setting) != wanted}
        if missing:
            await self.api(f"STREAM.UPDATE.{self.stream}", **{**found, **missing})

    def _subjects(self) -> list[str]:
        return [f"{self._begins}C.>", f"{self._begins}M.>"]

    def told(self, refused: BucketRefused) -> Exception:
        """The error for what the servers refuse.

        Args:
            refused: What they say.

        Returns:
            The error, to be raised.
        """
        if refused.code in _NO_JETSTREAM:
            return StoreUnavailable(f"{self.place}: JetStream is not enabled there, or not for this account: {refused}")
        if refused.code in _NOT_ENOUGH_SERVERS:
            return StoreUnavailable(f"{self.place}: there are too few servers: {refused}: give fewer replicas")
        if refused.code in _FULL:
            return StoreUnavailable(
                f"{self.place} is full: {refused}: sweep it, or raise its max_bytes or the servers' max_file_store"
            )
        return StoreUnavailable(f"{self.place}: the servers refuse: {refused} (error {refused.code})")

    # Asking

    async def api(self, operation: str, **asked: Any) -> dict[str, Any]:
        """Ask the administration of JetStream, again and again.

        Args:
            operation: What, as in ``STREAM.INFO.OBJ_blobs``.
            asked: More of it.

        Returns:
            The answer.

        Raises:
            BucketRefused: It says no.
            StoreUnavailable: It does not answer.
        """
        return await self._patiently(lambda: self._api(operation, asked))

    async def _api(self, operation: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        return self._accepted(
            await self._connection.ask(f"$JS.API.{operation}", json.dumps(asked).encode() if asked else b"")
        )

    def _accepted(self, body: bytes) -> dict[str, Any]:
        try:
            answer: dict[str, Any] = json.loads(body)
        except ValueError as error:
            raise StoreUnavailable(f"{self.place} does not answer as JetStream: it gave {body[:80]!r}") from error
        if "error" in answer:
            raise BucketRefused(answer["error"])
        return answer

    async def _patiently(self, ask: Callable[[], Awaitable[A]]) -> A:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout_seconds
        while True:
            reason: Exception
            try:
                return await ask()
            except Denied as denied:
                raise InvalidRequest(
                    f"{self.place}: {denied}: let the user publish to {self._begins}> and $JS.API.>, and hear its inbox"
                ) from denied
            except Unanswered as unanswered:
                reason = unanswered
            except BucketRefused as refused:
                if not refused.is_passing:
                    raise
                reason = refused
            if loop.time() >= deadline:
                raise StoreUnavailable(f"{self.place}: {reason}: see to the servers, then try again") from reason
            await asyncio.sleep(_AGAIN_SECONDS)

    # Reading

    async def last_of(self, subject: str) -> BucketMessage | None:
        """The last message of a subject, or under a wildcard, as who leads has it."""
        return await self._patiently(lambda: self._got(last_by_subj=subject))

    async def next_of(self, subject: str, number: int) -> BucketMessage | None:
        """The first message of a subject from a number on, as who leads has it."""
        return await self._patiently(lambda: self._got(seq=number, next_by_subj=subject))

    async def _got(self, **which: Any) -> BucketMessage | None:
        try:
            answer = await self._api(f"STREAM.MSG.GET.{self.stream}", which)
        except BucketRefused as refused:
            if refused.code in {_NO_MESSAGE, _NO_STREAM}:
                return None
            raise
        found = answer["message"]
        return BucketMessage(
            found["seq"],
            found["subject"],
            base64.b64decode(found.get("data", "")),
            headers_in(base64.b64decode(found.get("hdrs", ""))),
            micros_of(found["time"]),
        )

    async def surely_last_of(self, subject: str) -> BucketMessage | None:
        """The last message of a subject, with all that was acknowledged before this was asked.

        Who leads may have been stopped for a while, and answer as if it led still. So a barrier is written first,
        which a majority takes in: a server that has the barrier has whatever was acknowledged before. Who may not
        write takes the word of who leads.
        """
        if not self._may_write:
            return await self.last_of(subject)
        barrier = self.subject_of(_BARRIER)
        written = await self._write_barrier()

        async def look() -> BucketMessage | None:
            found, _ = await self._direct({"multi_last": [subject, barrier]})
            by_subject = {message.subject: message for message in found}
            if barrier not in by_subject or by_subject[barrier].number < written:
                raise Unanswered("the server that answers lags behind", is_sent=True)
            return by_subject.get(subject)

        return await self._patiently(look)

    async def _write_barrier(self) -> int:
        body = msgspec.json.encode(BucketObject(name=_BARRIER, bucket=self.name, deleted=True))
        barrier = NewMessage(self.subject_of(_BARRIER), body, {**_ROLLUP})
        return await self._patiently(lambda: self._published(barrier))

    async def page(self, subject: str, number: int, limit: int) -> list[BucketMessage]:
        """Messages of a subject, or under a wildcard, from a number on, as any of the servers has them.

        Args:
            subject: The subject.
            number: From which one on.
            limit: How many, at the most.

        Returns:
            The messages. It may have fewer than who leads, and then fewer than there are.
        """
        limits = iter((limit,))

        async def ask() -> list[BucketMessage]:
            # Where many do not come in time, one may.
            asked = {"seq": number, "next_by_subj": subject, "batch": next(limits, 1)}
            return (await self._direct(asked))[0]

        return await self._patiently(ask)

    async def _direct(self, asked: Mapping[str, Any]) -> tuple[list[BucketMessage], Mapping[str, str]]:
        """What a direct get gives, and the headers of what ends it."""
        found: list[BucketMessage] = []
        ended: asyncio.Future[Mapping[str, str]] = asyncio.get_running_loop().create_future()

        def take(body: bytes, raw: bytes) -> bool:
            headers = headers_in(raw)
            # As in "NATS/1.0 204 EOB", where a message has its headers at once.
            status = raw[9:12].decode() if raw[8:9] == b" " else ""
            if not status:
                own = headers["Nats-Subject"], body, headers, micros_of(headers["Nats-Time-Stamp"])
                found.append(BucketMessage(int(headers["Nats-Sequence"]), *own))
                return False
            if not ended.done():
                if status in {"204", "404"}:
                    ended.set_result(headers)
                else:
                    ended.set_exception(BucketRefused({"code": int(status), "description": raw[8:].decode().strip()}))
            return True

        subject = f"$JS.API.DIRECT.GET.{self.stream}"
        self._connection.begin(subject, json.dumps(asked).encode(), take, failing(ended))
        return found, await ended

    async def infos(self) -> list[BucketMessage]:
        """What is said of all objects: all that was acknowledged before this was called, in their order.

        Returns:
            The messages, one for each name.
        """
        everything = f"{self._begins}M.>"
        if self._may_write:
            newest = await self._write_barrier()
        else:
            last = await self.last_of(everything)
            newest = 0 if last is None else last.number
        found: dict[str, BucketMessage] = {}
        number = 0

        async def next_page() -> list[BucketMessage]:
            page, _ = await self._direct({"seq": number + 1, "next_by_subj": everything, "batch": _PAGE})
            if not page and await self._is_there(everything, number + 1):
                raise Unanswered("the server that answers lags behind", is_sent=True)
            return page

        while number < newest and (page := await self._patiently(next_page)):
            found.update((message.subject, message) for message in page)
            number = page[-1].number
        found.pop(self.subject_of(_BARRIER), None)
        return sorted(found.values())

    async def _is_there(self, subject: str, number: int) -> bool:
        return await self._got(seq=number, next_by_subj=subject) is not None

    async def nuids(self) -> AsyncIterator[str]:
        """Whose chunks are there, and what stands beside chunks, whether or not there is an object of them.

        Yields:
            Each nuid, once.
        """
        seen = set()
        offset = 0
        while True:
            try:
                answer = await self.api(
                    f"STREAM.INFO.{self.stream}", subjects_filter=f"{self._begins}C.>", offset=offset
                )
            except BucketRefused as refused:
                if refused.code == _NO_STREAM:
                    return
                raise
            subjects = (answer["state"].get("subjects") or {}).keys()
            for subject in subjects:
                nuid = subject.removeprefix(f"{self._begins}C.").partition(".")[0]
                if nuid not in seen:
                    seen.add(nuid)
                    yield nuid
            offset += len(subjects)
            if not subjects or offset >= answer.get("total", 0):
                return

    # Writing

    async def write(self, message: NewMessage, expected: int) -> int:
        """Write a message where the last of its subject has a number.

        It is sent again until it is known to be there, with an identifier of its own, and is there once.

        Args:
            message: The message.
            expected: That number; 0: there is none.

        Returns:
            The number of what was written.

        Raises:
            BucketRefused: It cannot be written, such as where the bucket is full.
            StoreUnavailable: It is not known whether it was written.
        """
        identifier = secrets.token_hex(8)
        headers = {**message.headers, EXPECTED: str(expected), _MESSAGE_ID: identifier}

        async def once() -> int:
            try:
                return await self._published(message._replace(headers=headers))
            except BucketRefused as refused:
                if refused.code != _WRONG_LAST:
                    raise
                last = await self.surely_last_of(message.subject)
                if last is not None and last.headers.get(_MESSAGE_ID) == identifier:
                    return last.number
                if (0 if last is None else last.number) != expected:
                    raise self.swept() from refused
                raise Unanswered("the server that leads lags behind", is_sent=False) from refused

        return await self._patiently(once)

    async def write_info(self, info: BucketObject, expected: int) -> int | None:
        """Write what an object is, where nobody else has written that meanwhile.

        Args:
            info: What it is.
            expected: The number of what was said of it before; 0: nothing.

        Returns:
            The number of what was written; None where something else was said meanwhile, and nothing was written.

        Raises:
            BucketRefused: It cannot be written, and was not.
            StoreUnavailable: It is not known whether it was written.
        """
        own = NewMessage(self.subject_of(info.name), msgspec.json.encode(info), {**_ROLLUP, EXPECTED: str(expected)})
        is_unknown = False

        async def once() -> int | None:
            nonlocal is_unknown
            try:
                return await self._published(own)
            except Unanswered as unanswered:
                is_unknown = is_unknown or unanswered.is_sent
                raise
            except BucketRefused as refused:
                is_outdated = refused.code == _WRONG_LAST
                if refused.is_passing or not (is_outdated or is_unknown):
                    raise
                last = await self.surely_last_of(own.subject)
                if last is not None and last.body == own.body:
                    return last.number
                if not is_outdated:
                    # A try that was not answered may still be carried out.
                    raise StoreUnavailable(
                        f"{self.place}: {refused}, and it is not known whether it was written: try again"
                    ) from refused
                if (0 if last is None else last.number) != expected:
                    return None
                raise Unanswered("the server that leads lags behind", is_sent=False) from refused

        return await self._patiently(once)

    async def _published(self, message: NewMessage) -> int:
        answer = self._accepted(await self._connection.ask(message.subject, message.body, message.headers))
        return int(answer["seq"])

    async def purge(self, subject: str, *, below: int | None = None, is_patient: bool = True) -> None:
        """Take away the messages of a subject, or under a wildcard.

        Args:
            subject: The subject.
            below: Only those with lower numbers than this; None: all.
            is_patient: Whether it is asked again and again.
        """
        which: dict[str, Any] = {"filter": subject} if below is None else {"filter": subject, "seq": below}
        operation = f"STREAM.PURGE.{self.stream}"
        if is_patient:
            await self.api(operation, **which)
            return
        try:
            await self._api(operation, which)
        except (Unanswered, BucketRefused) as error:
            raise StoreUnavailable(f"{self.place}: {error}") from error

    async def purge_chunks(self, nuid: str, *, is_patient: bool = True) -> None:
        """Take away the chunks of an object, and what stands beside them."""
        for subject in (self.chunks_of(nuid), f"{self.chunks_of(nuid)}.>"):
            await self.purge(subject, is_patient=is_patient)

    def swept(self) -> StoreUnavailable:
        """The error of a put whose chunks were taken away as those of a dead process.

        Returns:
            The error, to be raised.
        """
        return StoreUnavailable(
            f"{self.place}: a sweep has taken away what was put, since nothing of it was written for longer than the "
            "sweep's grace: put it again"
        )

    async def claim(self, nuid: str, last: int) -> int | None:
        """Write a message without bytes behind the chunks of an object, by which who still puts it knows of a sweep.

        Args:
            nuid: Whose chunks.
            last: The number of the last one that was seen.

        Returns:
            The message's number; None where more chunks were written meanwhile.
        """
        try:
            return await self._patiently(
                lambda: self._published(NewMessage(self.chunks_of(nuid), b"", {EXPECTED: str(last)}))
            )
        except BucketRefused as refused:
            if refused.code == _WRONG_LAST:
                return None
            raise

    async def delete(self, number: int) -> None:
        """Take away one message.

        Args:
            number: Its number.
        """
        await self.api(f"STREAM.MSG.DELETE.{self.stream}", seq=number, no_erase=True)


def name_in(message: BucketMessage) -> str:
    """The name of an object, by the subject of what says what it is.

    Args:
        message: The message.

    Returns:
        The name; "" where it is not the name of any.
    """
    try:
        return base64.urlsafe_b64decode(message.subject.rpartition(".")[2]).decode()
    except ValueError:
        return ""


def info_in(message: BucketMessage, place: str) -> BucketObject:
    """What a message says of an object.

    Args:
        message: The message.
        place: What errors call the bucket.

    Returns:
        The object.

    Raises:
        CorruptStore: It says nothing of the kind.
    """
    try:
        return msgspec.json.decode(message.body, type=BucketObject)
    except msgspec.DecodeError as error:
        raise CorruptStore(
            f"{place}: message {message.number}: expected what an object is, found {message.body[:80]!r}: put its "
            "bytes again"
        ) from error


def micros_of(time: str) -> int:
    """A time as NATS writes it, in microseconds since 1970, UTC.

    >>> micros_of("1970-01-01T00:00:01.5Z"), micros_of("1970-01-01T00:00:00.123456789Z")
    (1500000, 123456)
    """
    whole, _, fraction = time.removesuffix("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 1_000_000 + int(fraction[:6].ljust(6, "0"))
