"""One connection to servers of NATS, in an event loop in a thread of its own.

What is asked is answered at subjects that only this connection hears. Many thousands are on their way at once, so each
costs one entry of a table, and no task, future or timer of its own unless whoever asks wants one.
"""

import asyncio
import itertools
import math
import secrets
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from interpreters.nats.access import Access
from interpreters.threads.background import BackgroundThread
from interpreters.threads.descriptors import close_copies
from interpreters.threads.gates import Gate
from persist_effects.errors import InternalError, InvalidRequest, StoreUnavailable

CONNECT_SECONDS = 10.0
"""How long the first connection may take."""

DIAL_SECONDS = 2.0
"""How long one try of connecting to one server may take."""

DIAL_AGAIN_SECONDS = 0.1
"""How long after a connection was lost, and after each try, another one is tried."""

AGAIN_SECONDS = 1.0
"""How long after it was refused a connection is tried again."""

CLOSE_SECONDS = 2.0
"""How long the servers may take to say goodbye."""

CANCEL_AGAIN_SECONDS = 0.05
"""How long a task that was cancelled may take until it is cancelled again."""

PING_SECONDS = 1
"""How often a server is asked whether it is there. One that has not said so three times is left for another one."""

_LOOK_SECONDS = 0.05
"""How exactly it is known that an answer has not come in time."""

_NO_RESPONDERS = b" 503"

A = TypeVar("A")

Headers = Mapping[str, str]
Take = Callable[[bytes, bytes], bool]
"""Takes an answer, its body and its headers as they came; says whether it was the last one."""


class Unanswered(Exception):
    """No answer came. ``is_sent``: what was asked may have been carried out all the same, or may be yet."""

    def __init__(self, message: str, *, is_sent: bool) -> None:
        super().__init__(message)
        self.is_sent = is_sent


class Denied(Unanswered):
    """The servers do not let this user do it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, is_sent=False)


class _Asked:
    """A question on its way."""

    __slots__ = ("deadline", "fail", "seconds", "subject", "take")

    def __init__(
        self, subject: str, seconds: float, deadline: float, take: Take, fail: Callable[[Unanswered], object]
    ) -> None:
        self.subject = subject
        self.seconds = seconds
        self.deadline = deadline
        self.take = take
        self.fail = fail


class _Client(Client):
    """nats-py's client, but for its busiest ways.

    Answers are handed on as they come, not by a queue and a task, and what is sent has been put together already.

    Where a newer nats-py does not take in messages that way, answers come by its subscription all the same.
    """

    _own_inbox = b"\0"
    _heard: Callable[[bytes, bytes, bytes], None]

    def hand_on(self, inbox: bytes, heard: Callable[[bytes, bytes, bytes], None]) -> None:
        """Hand on what comes to subjects that begin so: the subject, the body, and the headers as they came."""
        self._own_inbox, self._heard = inbox, heard

    @property
    def server_name(self) -> str:
        """What the server is called to which it is connected."""
        return str(self._server_info.get("server_name", ""))

    def send_soon(self, command: bytes) -> None:
        """Send a command of the protocol, with what else is sent in this turn of the loop."""
        _stepped(self._send_command(command))
        if self._flush_queue is not None and self._flush_queue.empty():
            _stepped(self._flush_pending())

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        if subject.startswith(self._own_inbox):
            self._heard(subject, data, headers or b"")
        else:
            await super()._process_msg(sid, subject, reply, data, headers)


def _stepped(coroutine: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that does not wait."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()
    raise InternalError("nats-py waits where it did not: this version of it does not fit")


class NatsConnection:
    """A connection, which is made anew whenever it is lost.

    Args:
        servers: Where some of the servers are, as ``host:port``.
        access: How they know this client, and it them.
        timeout: How many seconds one try of anything may take.
        patience_seconds: How long the first connection may take.
    """

    def __init__(
        self, servers: Sequence[str], access: Access, timeout: float, patience_seconds: float = CONNECT_SECONDS
    ) -> None:
        self.where = ", ".join(servers)
        self.timeout = timeout
        self._servers = tuple(f"nats://{server}" for server in servers)
        self._access = access
        self._patience = patience_seconds
        self._trouble = ""
        self._asked: dict[bytes, _Asked] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        # What is to be done in the loop, and what instead where that has ended.
        self._coming: deque[tuple[Callable[[], object], Callable[[], object]]] = deque()
        self._is_over = False
        self.on_back: list[Callable[[], object]] = []
        """Called in the loop when there is a connection again."""
        self.on_end: list[Callable[[], Coroutine[Any, Any, None]]] = []
        """Called in the loop before it ends."""
        self._ending: asyncio.Task[None] | None = None
        self._tokens = itertools.count(1)
        self._is_looking = False
        self._is_up = False
        self.loop: asyncio.AbstractEventLoop
        self.client = _Client()
        self._thread: BackgroundThread | None = None

    def open(self) -> "NatsConnection":
        """Connect. Whoever calls this closes it, whatever comes of it.

        Returns:
            Itself.

        Raises:
            StoreUnavailable: If none of the servers can be talked to.
            InvalidRequest: If they do not let this client in.
        """
        self.loop = asyncio.new_event_loop()
        self._thread = BackgroundThread(self._run, "persist-effects nats")
        self._thread.start()
        self.call(self._open)
        return self

    @property
    def server(self) -> str:
        """The address of the server to which it is connected now, without what is secret in it; "": to none."""
        url = self.client.connected_url
        return "" if url is None else f"nats://{url.hostname}:{url.port}"

    def call(self, function: Callable[..., Coroutine[Any, Any, A]], *arguments: Any) -> A:
        """Run a coroutine in the loop, from another thread, and wait for what it gives.

        Args:
            function: Makes it, in the loop: an interrupt of this thread leaves none that was made and never run.
            arguments: Of the function.

        Returns:
            What it gives.

        Raises:
            Unanswered: If the connection was closed meanwhile.
        """
        told = Gate()
        ended: list[asyncio.Task[A]] = []

        def end(task: "asyncio.Task[A]") -> None:
            ended.append(task)
            told.open()

        async def run() -> A:
            return await function(*arguments)

        self.do(lambda: self.start(run()).add_done_callback(end), told.open)
        told.wait(math.inf)
        if not ended or ended[0].cancelled():
            raise Unanswered("the connection was closed", is_sent=True)
        return ended[0].result()

    def do(self, job: Callable[[], object], refuse: Callable[[], object]) -> None:
        """Have something done in the loop, from any thread. One of both is surely called, unless this is interrupted.

        Args:
            job: What.
            refuse: Called instead where the loop has ended, or ends before it comes to that. It must not raise.
        """
        entry = job, refuse
        try:
            self._coming.append(entry)
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._do_all)
        except BaseException:
            # Else it would be done with what is asked next, whenever that is.
            with suppress(ValueError):
                self._coming.remove(entry)
            raise
        # Looked at after it was added: whoever ends the loop says so first, and refuses what is there then.
        if self._is_over:
            self._refuse_rest()

    def _do_all(self) -> None:
        while self._coming:
            job, refuse = self._coming.popleft()
            if self._ending is not None:
                # Which may have ended all tasks already; one that began now would wait for ever.
                refuse()
                continue
            try:
                job()
            except Exception as error:
                self.loop.call_exception_handler({"message": f"{job} failed", "exception": error})

    def _refuse_rest(self) -> None:
        # Several threads may come here at once.
        with suppress(IndexError):
            while True:
                _, refuse = self._coming.popleft()
                refuse()

    def start(self, coroutine: Coroutine[Any, Any, A]) -> "asyncio.Task[A]":
        """Run a coroutine beside others, in the loop. When the connection is closed it is ended."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open(self) -> None:
        try:
            await self._connect_in_time()
        except TimeoutError as error:
            trouble = f" ({self._trouble})" if self._trouble else ""
            raise StoreUnavailable(f"{self.where}: no server answers{trouble}: start one, or give another") from error
        except (nats.errors.Error, OSError) as error:
            if _is_unknown_user(error):
                raise InvalidRequest(
                    f"{self.where}: the servers do not know this user: give its user and password, token, nkey_file or "
                    "credentials_file"
                ) from error
            raise StoreUnavailable(f"{self.where}: {error or type(error).__name__}") from error
        await self._listen()

    async def _connect_in_time(self) -> None:
        # It would try for ever, as it does later.
        connecting = self.loop.create_task(self._connect())
        connecting.add_done_callback(heard)
        done, _ = await asyncio.wait([connecting], timeout=self._patience)
        if not done:
            await end_tasks([connecting])
            raise TimeoutError
        connecting.result()

    async def _listen(self) -> None:
        inbox = f"{self._access.inbox_prefix}.{secrets.token_hex(11)}."
        self._inbox = inbox.encode()
        self.client.hand_on(self._inbox, self._heard)
        await self.client.subscribe(inbox + "*", cb=self._heard_by_queue, pending_msgs_limit=-1, pending_bytes_limit=-1)
        self._is_up = True

    async def _connect(self) -> None:
        options = self._access.options()
        # Seconds, of which there may be parts, whatever their types say.
        times: dict[str, Any] = {"connect_timeout": DIAL_SECONDS, "reconnect_time_wait": DIAL_AGAIN_SECONDS}
        client = self.client

        async def note(error: Exception) -> None:
            if _is_unknown_user(error):
                # It would try for ever.
                client.options["allow_reconnect"] = False
            transport: Any = client._transport
            if transport is not None and not client.is_connected:
                # That of a try that has failed, which nats-py would leave to the collector.
                transport.close()
            await self._note_error(error)

        await client.connect(
            list(self._servers),
            max_reconnect_attempts=-1,
            allow_reconnect=True,
            pending_size=-1,
            ping_interval=PING_SECONDS,
            max_outstanding_pings=2,
            error_cb=note,
            disconnected_cb=self._lost,
            closed_cb=self._closed,
            reconnected_cb=self._is_back,
            **times,
            **options,
        )

    async def _note_error(self, error: Exception) -> None:
        """What goes wrong with the connection is told by what is asked over it; what is not allowed, at once."""
        told = self._trouble = str(error) or type(error).__name__
        if "permissions violation" not in told:
            return
        for token, asked in list(self._asked.items()):
            if f'"{asked.subject.lower()}"' in told or "subscription" in told:
                del self._asked[token]
                asked.fail(Denied(f"this user may not do it: {told.removeprefix('nats: ')}"))

    async def _lost(self) -> None:
        self._fail_all("the connection was lost")

    def _fail_all(self, reason: str) -> None:
        asked, self._asked = self._asked, {}
        for one in asked.values():
            one.fail(Unanswered(reason, is_sent=True))

    async def _closed(self) -> None:
        """nats-py has given up for good, as it does when a server refuses it: begin anew, as often as it takes."""
        if self._is_up and self._ending is None:
            self._is_up = False
            self._fail_all("the connection was closed by the server")
            self.start(self._begin_anew())

    async def _begin_anew(self) -> None:
        while not self._is_up:
            self.client = _Client()
            try:
                await self._connect()
                await self._listen()
            except (nats.errors.Error, OSError) as error:
                self._trouble = str(error)
                await self._close_client()
                await asyncio.sleep(AGAIN_SECONDS)
        await self._is_back()

    async def _is_back(self) -> None:
        for tell in self.on_back:
            tell()

    # Asking

    def publish(self, subject: str, body: bytes, headers: Headers | None = None, reply: str = "") -> None:
        """Send a message.

        Args:
            subject: To whom.
            body: What.
            headers: Beside the body; names and values of one line each.
            reply: Where an answer is heard.

        Raises:
            Unanswered: If there is no connection now, so that it was not sent.
            InvalidRequest: If the servers take none so large.
        """
        client = self.client
        if len(body) > client.max_payload:
            raise InvalidRequest(
                f"a message of {len(body)} bytes is over the servers' max_payload of {client.max_payload}: raise it "
                "there, or keep the value as a blob"
            )
        if not client.is_connected:
            raise Unanswered("there is no connection now", is_sent=False)
        if headers:
            lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
            head = f"NATS/1.0\r\n{lines}\r\n".encode()
            size = len(head)
            start = f"HPUB {subject} {reply} {size} {size + len(body)}\r\n".encode()
            client.send_soon(b"".join((start, head, body, b"\r\n")))
        else:
            client.send_soon(b"".join((f"PUB {subject} {reply} {len(body)}\r\n".encode(), body, b"\r\n")))

    def begin(
        self,
        subject: str,
        body: bytes,
        take: Take,
        fail: Callable[[Unanswered], object],
        headers: Headers | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Ask, and return at once.

        Args:
            subject: Whom.
            body: What.
            take: Takes each answer.
            fail: Called instead where no last answer comes.
            headers: Beside the body.
            timeout: How many seconds each answer may take; as for anything unless it is given.

        Raises:
            Unanswered: If there is no connection now, so that it was not sent.
        """
        seconds = self.timeout if timeout is None else timeout
        token = b"%x" % next(self._tokens)
        self._asked[token] = _Asked(subject, seconds, self.loop.time() + seconds, take, fail)
        try:
            self.publish(subject, body, headers, (self._inbox + token).decode())
        except BaseException:
            self._asked.pop(token, None)
            raise
        if not self._is_looking:
            self._is_looking = True
            self.loop.call_later(_LOOK_SECONDS, self._look)

    async def ask(self, subject: str, body: bytes, headers: Headers | None = None) -> bytes:
        """Ask, and return the body of the only answer. Raises `Unanswered`."""
        answer: asyncio.Future[bytes] = self.loop.create_future()

        def take(body: bytes, _: bytes) -> bool:
            if not answer.done():
                answer.set_result(body)
            return True

        self.begin(subject, body, take, failing(answer), headers)
        return await answer

    def _heard(self, subject: bytes, body: bytes, headers: bytes) -> None:
        token = subject[len(self._inbox) :]
        asked = self._asked.get(token)
        if asked is None:
            # It has come too late.
            return
        if not body and headers.startswith(_NO_RESPONDERS, 8):
            del self._asked[token]
            asked.fail(Unanswered("nobody leads it now", is_sent=False))
            return
        try:
            is_last = asked.take(body, headers)
        except Exception as error:
            # In nats-py's own loop nobody would be told.
            del self._asked[token]
            asked.fail(Unanswered(f"its answer cannot be read: {error!r}", is_sent=True))
            return
        if is_last:
            self._asked.pop(token, None)
        else:
            asked.deadline = self.loop.time() + asked.seconds

    async def _heard_by_queue(self, message: Msg) -> None:
        headers = dict(message.headers or {})
        status = headers.pop("Status", "")
        lines = [f"NATS/1.0 {status}".rstrip(), *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        self._heard(message.subject.encode(), message.data, "\r\n".join(lines).encode())

    def _look(self) -> None:
        """Fail what has not been answered in time."""
        now = self.loop.time()
        late = [token for token, asked in self._asked.items() if asked.deadline <= now]
        for token in late:
            asked = self._asked.pop(token)
            asked.fail(Unanswered(f"it has not answered within {asked.seconds:g} s", is_sent=True))
        self._is_looking = bool(self._asked)
        if self._is_looking:
            self.loop.call_later(_LOOK_SECONDS, self._look)

    def close(self) -> None:
        """Close it, from another thread, and wait until that is done. Again: nothing."""
        self.abandon()
        if self._thread is not None:
            self._thread.join()
            if not self._thread.is_begun:
                self.loop.close()

    def abandon(self) -> None:
        """Have it closed, and do not wait for it: from any thread, its own too."""
        if self._thread is not None:
            with suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._begin_to_end)

    def _begin_to_end(self) -> None:
        if self._ending is None:
            self._ending = self.loop.create_task(self._end())

    async def _end(self) -> None:
        try:
            for end in self.on_end:
                await end()
        finally:
            await self._end_rest()

    async def _end_rest(self) -> None:
        try:
            self._fail_all("the connection was closed")
            await end_tasks(asyncio.all_tasks() - {self._ending})
            await self._close_client()
        finally:
            self.loop.stop()

    async def _close_client(self) -> None:
        # One that was interrupted is half-made, and says so by whatever is missing in it.
        closing = self.loop.create_task(self.client.close())
        closing.add_done_callback(heard)
        await asyncio.wait([closing], timeout=CLOSE_SECONDS)
        await end_tasks([closing])
        if not closing.done() or closing.cancelled():
            writer = self._writer_of_client()
            if writer is not None:
                writer.transport.abort()
                # The event loop lets go of it in its next turn.
                await asyncio.sleep(0)

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self._is_over = True
            self._refuse_rest()
            self.loop.close()

    def _writer_of_client(self) -> asyncio.StreamWriter | None:
        writer: asyncio.StreamWriter | None = getattr(self.client._transport, "_io_writer", None)
        return writer

    def leave_to_parent(self) -> None:
        """In a forked child: close its copies of what the parent's connection has open, and say nothing to the servers.

        Whoever had it makes another one, and keeps this one, so that nothing of it is ended.
        """
        writer = self._writer_of_client()
        inner = None if writer is None else writer.get_extra_info("socket")
        selector: Any = self.loop
        close_copies(
            [
                *([] if inner is None else [inner.fileno()]),
                selector._selector.fileno(), selector._ssock.fileno(), selector._csock.fileno(),
            ]
        )  # fmt: skip


def _is_unknown_user(error: Exception) -> bool:
    return "authorization" in str(error).lower()


async def end_tasks(tasks: "Iterable[asyncio.Task[Any]]") -> None:
    """Cancel tasks until they have ended, for a while at the most.

    One cancellation is not enough: nats-py takes those that come while it flushes for its own, and goes on.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + CLOSE_SECONDS
    left = {task for task in tasks if not task.done()}
    while left and loop.time() < deadline:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_SECONDS)


def failing(answer: "asyncio.Future[Any]") -> Callable[[Unanswered], None]:
    """What has a future fail that still waits."""

    def fail(error: Unanswered) -> None:
        if not answer.done():
            answer.set_exception(error)

    return fail


def heard(ended: "asyncio.Future[Any]") -> None:
    """Called when something has ended that nobody may ever ask for: what it has failed with is not told."""
    if not ended.cancelled():
        ended.exception()


def headers_in(raw: bytes) -> dict[str, str]:
    r"""Headers as they came.

    >>> headers_in(b"NATS/1.0\r\nNats-Sequence: 12\r\n\r\n")
    {'Nats-Sequence': '12'}
    """
    lines = raw.decode().split("\r\n")[1:]
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
