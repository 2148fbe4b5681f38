"""A client's connection, and the one thread that reads from it and writes to it.

Whoever asks puts its calls into a deque, wakes the thread and waits at a gate of its own: so an interrupt, wherever it
comes, leaves no lock held and no half of a frame sent. Where nothing else is on its way, it sends its one call by
itself, which saves waking a thread for that: see `Line.ask_alone`. A call is in one of these places:

========  =====================================================================================================
inbox     put there by whoever asks; taken out by the thread, or by whoever finds that the thread is over
queue     to be sent, in this order
calls     on the connection, by its id; ``is_sent`` once the system has all bytes of its frame
========  =====================================================================================================

Where the connection is lost, and can be dialled again, what was not sent whole goes back to the queue: a server that
has a part of a frame has done nothing of it. So do reads, and waits. A write that was sent is uncertain.
"""

import math
import random
import select
import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import msgspec

from interpreters.stores.served.doors import Door
from interpreters.stores.served.wire import (
    FRAME_LIMIT_BYTES,
    WIRE_VERSION,
    AskCompact,
    AskHealth,
    FrameParser,
    Greeting,
    Hello,
    WaitForOrder,
    error_of_reply,
    frame_of,
    greeting_of,
    reply_of,
)
from interpreters.threads.background import BackgroundThread
from interpreters.threads.gates import Gate
from persist_effects import codec
from persist_effects.errors import (
    InternalError,
    PersistError,
    StoreClosed,
    StoreUnavailable,
    UncertainOutcome,
    error_from_record,
    error_to_record,
)
from persist_effects.requests import CHANGES, Answered, Failed, KvWait, Outcome, Request, Wait

BACKOFF_SECONDS = 0.05
"""How long a client waits at the most before it dials again, drawn anew each time, so that many do not come at once."""

LOOKS_IN_A_TIMEOUT = 8
"""How often it is looked, in the time after which a call is given up, whether there are any to give up."""

PIECE_BYTES = 256 * 1024
"""How many bytes are sent or received by one call of the system."""

_CLOSED = "this store was closed: open it again to run programs"

_READABLE = select.POLLIN | select.POLLHUP | select.POLLERR


class WireCall:
    """A request on its way, and whoever takes its outcome.

    Args:
        request: What is asked.
        record: The same, encoded.
        done: Takes the outcome, once, in the connection's thread; quick, and without raising.
    """

    __slots__ = ("asked", "done", "ends", "id", "is_done", "is_sent", "is_wanted", "record", "request")

    def __init__(self, request: Request[Any], record: bytes, done: Callable[[Outcome], None]) -> None:
        self.request = request
        self.record = record
        self.done = done
        self.id = 0
        self.is_sent = self.is_done = False
        self.is_wanted = True
        self.asked = time.monotonic()
        # When a wait is over; None: it is not one, and is to be answered soon.
        self.ends: float | None = None
        if isinstance(request, Wait | KvWait | WaitForOrder | AskCompact) and request.timeout > 0:
            self.ends = self.asked + request.timeout

    def has_gone(self, now: float) -> None:
        """Note that the system has all bytes of its frame: from now on it is the server's turn."""
        self.is_sent = True
        self.asked = now

    def settle(self, outcome: Outcome) -> None:
        """Give it its outcome, unless it has one."""
        if not self.is_done:
            self.is_done = True
            self.record = b""
            self.done(outcome)


class _LostError(Exception):
    """The connection is lost. It says why."""


class _ClosingError(Exception):
    """The store is being closed, so whatever the thread waits for is given up."""


class Line:
    """The connection of one client.

    Args:
        door: Where connections come from.
        token: What is said to the server.
        timeout: After how many seconds without an answer a request is given up.
        is_patient: Whether it dials again where the first connection cannot be made.
    """

    def __init__(self, door: Door, token: str | None, timeout: float, *, is_patient: bool = False) -> None:
        self._door = door
        self._token = token
        self._timeout = timeout
        self._is_patient = is_patient
        self._inbox: deque[WireCall] = deque()
        self._waking, self._woken = socket.socketpair()
        self._waking.setblocking(False)
        self._woken.setblocking(False)
        # Held by whoever sends, for as long as the system takes to take bytes in, or to refuse them.
        self._turn = threading.Lock()
        # What a caller was sending by itself, until that is accounted for.
        self._alone: tuple[WireCall, bytes, list[int]] | None = None
        # Taken by the thread that serves it, and never let go of: who comes second ends.
        self._claim = threading.Lock()
        self._thread: BackgroundThread | None = None
        self._is_plain = False
        self._is_asleep = self._is_closing = self._is_abandoned = self._is_over = False
        # Whether there was a connection, when it is dialled.
        self._is_begun = False
        self._reason = ""
        self.opened = Gate()
        """Opened once the first connection stands, or has failed."""
        self.failure: BaseException | None = None
        """Why it failed."""
        self.greeting: Greeting | None = None
        # What follows is the thread's own.
        self._socket: socket.socket | None = None
        self._queue: deque[WireCall] = deque()
        self._calls: dict[int, WireCall] = {}
        self._last_id = 0
        self._lasting = 0
        self._due: deque[WireCall] = deque()
        self._parser = FrameParser(FRAME_LIMIT_BYTES)
        self._frames: deque[bytes] = deque()
        self._buffer = memoryview(b"")
        self._begun: deque[tuple[int, WireCall]] = deque()
        self._sent_bytes = 0
        self._goodbyes: list[int] = []
        self._is_refusing = False
        self._said = ""
        self._heard = self._moved = self._lost_at = time.monotonic()
        # When it is looked next whether any call is late, and how often that is, while there are any.
        self._look_at = 0.0
        self._tick_ms = min(1_000.0, timeout * 1_000 / LOOKS_IN_A_TIMEOUT)

    # Called by others

    def start(self) -> None:
        """Start the thread, unless it was."""
        if not self._claim.locked():
            thread = BackgroundThread(self._run, "persist-effects client")
            self._thread = thread
            try:
                thread.start()
            except RuntimeError as error:
                raise StoreUnavailable(f"no thread could be started to ask the store: {error}") from error

    def ask(self, calls: Sequence[WireCall]) -> None:
        """Send calls. After an interrupt, none that is not sent yet is."""
        try:
            self._inbox.extend(calls)
            self.start()
            self._wake()
            if self._is_over:
                self._fail_inbox()
        except BaseException:
            for call in calls:
                call.is_wanted = False
            raise

    def ask_alone(self, call: WireCall) -> None:
        """Send one call: by itself where nothing is on its way, else as `ask` does.

        What the system took is known as soon as it took it, in one step of Python's, so that whoever sends next can
        go on from there, whatever an interrupt has kept this one from noting.
        """
        if not self._send_alone(call):
            self.ask([call])

    def _send_alone(self, call: WireCall) -> bool:
        # Looked at without the turn, which may be another's for a while.
        if not self._is_quiet() or call.ends is not None:
            return False
        try:
            with self._turn:
                self._account()
                if not self._is_quiet():
                    return False
                call.id = self._last_id + 1
                frame = frame_of([call.id, msgspec.Raw(call.record)])
                taken: list[int] = []
                # Before anything is changed, so that it can be taken back.
                self._alone = call, frame, taken
                self._calls[call.id] = call
                self._last_id = call.id
                self._due.append(call)
                assert self._socket is not None
                taken.extend(map(self._socket.send, (frame,)))
                self._account()
        except OSError:
            # It takes none now. The thread finds out what is wrong, if anything is.
            return False
        except BaseException:
            call.is_wanted = False
            raise
        if self._buffer:
            self._wake()
        return True

    def _is_quiet(self) -> bool:
        """Whether nothing is on its way, over a connection that may be written to from any thread, as TLS may not."""
        is_busy = self._calls or self._buffer or self._queue or self._inbox
        return self._is_plain and not (is_busy or self._is_refusing or self._is_closing)

    def _account(self) -> None:
        """By whoever has the turn: note what the system took of a call that was sent alone. Again: the same."""
        if self._alone is None:
            return
        call, frame, taken = self._alone
        if not taken:
            if self._calls.get(call.id) is call:
                del self._calls[call.id]
        elif taken[0] < len(frame):
            self._buffer, self._sent_bytes = memoryview(frame)[taken[0] :], taken[0]
            self._begun = deque([(len(frame), call)])
        else:
            call.has_gone(time.monotonic())
        self._alone = None

    def hurry(self) -> None:
        """Have it looked whether a call is late: the thread may sleep without end where it was sent alone."""
        self._wake()

    def withdraw(self, call: WireCall) -> None:
        """Say that nobody waits for a call any more."""
        call.is_wanted = False
        self._inbox.append(call)
        self._wake()
        if self._is_over:
            self._fail_inbox()

    def close(self) -> None:
        """End the thread, and let go of the connection. What still waits is told. Again: nothing."""
        self._is_closing = True
        self._wake()
        thread = self._thread
        if thread is not None:
            thread.join()
        if not self._claim.locked():
            self._is_over = True
            self._fail_inbox()
            self._door.end()
        self._waking.close()
        self._woken.close()

    def abandon(self) -> None:
        """Let the thread end by itself, because nobody has the store any more."""
        self._is_abandoned = self._is_closing = True
        self._wake()

    def leave_to_parent(self) -> None:
        """In a forked child: close the copies, and say nothing to anybody."""
        for copied in (self._socket, self._waking, self._woken):
            if copied is not None:
                copied.close()
        self._door.leave_to_parent()

    def _wake(self) -> None:
        if self._is_asleep:
            # Where it is full, or closed, there is nothing to wake.
            with suppress(OSError):
                self._waking.send(b"\0")

    def _fail_inbox(self) -> None:
        """Once the thread takes nothing more: whoever finds a call there tells it."""
        with suppress(IndexError):
            while True:
                self._fail(self._inbox.popleft())

    # The thread

    def _run(self) -> None:
        if not self._claim.acquire(blocking=False):
            return
        try:
            self._live()
        except _ClosingError:
            self._reason = _CLOSED
        except BaseException as error:
            self._reason = f"the store is lost: its thread met {error!r}"
            self.failure = error
        finally:
            self._end()

    def _live(self) -> None:
        is_first = not self._is_patient
        while True:
            try:
                connected = self._dial(is_first)
            except (OSError, PersistError) as error:
                if is_first or not self._door.is_dialled:
                    self.failure, self._reason = error, str(error)
                    return
                self._reason = f"{self._door.where}: {error}{self._door.advice(error)}"
                if isinstance(error, PersistError) and not isinstance(error, StoreUnavailable):
                    self._refuse(error)
                self._back_off()
                self._await_need()
                continue
            is_first = False
            self.opened.open()
            reason = self._reason_of_loss(connected)
            self._hang_up()
            if not self._door.is_dialled:
                self._reason = f"the store is lost: {self._door.how_it_ended() or reason}"
                return
            self._reason = f"{self._door.where}: {reason}"
            self._take_back()
            self._await_need()

    def _reason_of_loss(self, connected: socket.socket) -> str:
        """Talk until the connection is lost, and say why it was."""
        try:
            self._talk(connected)
        except _LostError as lost:
            return str(lost)
        except (OSError, ValueError, MemoryError, PersistError) as error:
            return f"the connection was lost: {error or repr(error)}"

    def _end(self) -> None:
        """Tell all that wait, and let go of everything."""
        if self._is_closing:
            self._reason = _CLOSED
        self._hang_up(is_polite=True)
        self._is_over = True
        for call in [*self._calls.values(), *self._queue]:
            self._fail(call)
        self._fail_inbox()
        self._door.end()
        self.opened.open()
        if self._is_abandoned:
            self._waking.close()
            self._woken.close()

    def _hang_up(self, *, is_polite: bool = False) -> None:
        with self._turn:
            self._account()
            connected, self._socket, self._is_plain = self._socket, None, False
            if connected is not None:
                if is_polite:
                    # The peer may be gone already, which is what is wanted.
                    with suppress(OSError):
                        connected.shutdown(socket.SHUT_RDWR)
                connected.close()

    def _fail(self, call: WireCall, reason: str | None = None) -> None:
        reason = reason or self._reason
        op = call.request.op
        if call.is_sent and type(call.request) in CHANGES:
            message = f"{op} was on its way: {reason}; whether it was written is not known"
            call.settle(Failed(UncertainOutcome(message)))
            return
        kind = StoreClosed if self._is_closing else StoreUnavailable
        call.settle(Failed(kind(f"{op} was not answered: {reason}")))

    def _refuse(self, error: PersistError) -> None:
        """Tell all that wait to be sent what the server says to everybody, as it would to the next one too."""
        record = error_to_record(error)
        self._take_inbox()
        while self._queue:
            # Each is raised elsewhere, with a traceback of its own.
            self._queue.popleft().settle(Failed(error_from_record(record)))

    def _take_back(self) -> None:
        """After the connection: what must not be asked again is uncertain, all else goes back to where it was."""
        again = []
        for call in self._calls.values():
            if call.is_sent and type(call.request) in CHANGES:
                self._fail(call)
            elif call.is_wanted and not call.is_done:
                call.is_sent = False
                call.record = _again(call)
                again.append(call)
        self._calls, self._lasting = {}, 0
        self._queue.extendleft(reversed(again))
        self._lost_at = time.monotonic()

    # Dialling

    def _dial(self, is_first: bool) -> socket.socket:
        if self._is_closing:
            raise _ClosingError
        deadline, seconds = math.inf, min(self._timeout, self._door.dial_seconds)
        if self._door.is_dialled:
            deadline = time.monotonic() + seconds
        last: Exception | None = None

        def late() -> TimeoutError:
            why = "" if last is None else f": {getattr(last, 'strerror', None) or last}"
            return TimeoutError(f"it has not answered within {seconds:g} s{why}")

        def ready(connected: socket.socket, event: int) -> None:
            if not self._poll(connected, event, deadline):
                raise late()

        while True:
            try:
                return self._dial_once(ready)
            except (OSError, StoreUnavailable) as error:
                # Where its queue is full, or another server is about to come, it is tried again.
                is_soon = isinstance(error, BlockingIOError) or (self._is_begun and self._door.comes_back)
                if is_soon and time.monotonic() < deadline:
                    last = error
                    self._back_off(deadline)
                    continue
                failed = late() if is_soon and last is not None else error
                if is_first and isinstance(failed, OSError):
                    raise StoreUnavailable(f"{self._door.where}: {failed}{self._door.advice(failed)}") from error
                raise failed from None

    def _back_off(self, deadline: float = math.inf) -> None:
        pause = random.uniform(0.0, BACKOFF_SECONDS)  # noqa: S311 - no secret
        self._poll(None, 0, min(deadline, time.monotonic() + pause))

    def _dial_once(self, ready: Callable[[socket.socket, int], None]) -> socket.socket:
        self._is_begun = False
        connected = self._door.connect(ready)
        # Known at once, so that a fork closes it.
        self._socket = connected
        try:
            self._is_begun = True
            self._parser, self._frames = FrameParser(FRAME_LIMIT_BYTES), deque()
            self._buffer, self._begun = memoryview(b""), deque()
            self._last_id, self._is_refusing, self._goodbyes, self._said = 0, False, [], ""
            self._say_hello(connected, ready)
            self._hear_greeting(connected, ready)
        except BaseException:
            self._hang_up()
            raise
        return connected

    def _say_hello(self, connected: socket.socket, ready: Callable[[socket.socket, int], None]) -> None:
        hello = memoryview(frame_of(Hello(WIRE_VERSION, self._token)))
        while hello:
            try:
                hello = hello[connected.send(hello) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                ready(connected, select.POLLOUT)
            except BrokenPipeError:
                # It may have said why before it closed.
                return

    def _hear_greeting(self, connected: socket.socket, ready: Callable[[socket.socket, int], None]) -> None:
        while not self._frames:
            try:
                data = connected.recv(PIECE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError):
                ready(connected, select.POLLIN)
                continue
            except ConnectionResetError:
                data = b""
            if not data:
                ended = self._door.how_it_ended()
                raise StoreUnavailable(
                    "the server closed the connection before it greeted: see its log"
                    if ended is None
                    else f"the store was not opened: {ended}"
                )
            self._frames.extend(self._parser.take(data))
        greeting = greeting_of(self._frames.popleft())
        self._door.check_served(greeting.served)
        self.greeting = greeting
        self._heard = time.monotonic()

    def _poll(self, connected: socket.socket | None, event: int, deadline: float) -> bool:
        """Wait until a socket is ready, or the deadline is over. Meanwhile calls are taken in, and given up in time."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        if connected is not None:
            poll.register(connected, event)
        while True:
            self._take_inbox()
            now = time.monotonic()
            if now >= self._look_at:
                self._give_up_late(None)
            if now >= deadline:
                return False
            for number, _ in self._sleep(poll, deadline - now):
                if number == self._woken.fileno():
                    self._be_woken()
                else:
                    return True

    def _await_need(self) -> None:
        """Wait until somebody asks something: a server that nobody needs is not dialled."""
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        self._take_inbox()
        while not self._queue:
            for _ in self._sleep(poll, math.inf):
                self._be_woken()
            self._take_inbox()
            self._lost_at = time.monotonic()

    def _sleep(self, poll: "select.poll", seconds: float) -> list[tuple[int, int]]:
        """Wait for one of the sockets, for a call, or until it is time to look for late ones."""
        pause: float | None = None if seconds == math.inf else max(0.0, seconds) * 1000
        if self._due or self._lasting or self._queue:
            pause = self._tick_ms if pause is None else min(pause, self._tick_ms)
        self._is_asleep = True
        # Looked at after it was said, so that who comes in between is either seen or wakes.
        if self._inbox or self._is_closing:
            pause = 0
        found = poll.poll(pause if pause is None else math.ceil(pause))
        self._is_asleep = False
        if self._is_closing:
            raise _ClosingError
        return found

    def _be_woken(self) -> None:
        with suppress(BlockingIOError):
            self._woken.recv(4096)

    # Talking

    def _talk(self, connected: socket.socket) -> NoReturn:
        poll = select.poll()
        poll.register(self._woken, select.POLLIN)
        poll.register(connected, select.POLLIN)
        woken, registered = self._woken.fileno(), select.POLLIN
        # Those that came with the greeting.
        while self._frames:
            self._settle(self._frames.popleft())
        self._is_plain = not isinstance(connected, ssl.SSLSocket)
        while True:
            if self._inbox:
                self._take_inbox()
            if self._queue or self._buffer or self._goodbyes or self._alone is not None:
                with self._turn:
                    self._account()
                    wanted = self._send(connected) | select.POLLIN
                if wanted != registered:
                    poll.modify(connected, wanted)
                    registered = wanted
            for number, event in self._sleep(poll, math.inf):
                if number == woken:
                    self._be_woken()
                elif event & _READABLE:
                    self._receive(connected)
            if time.monotonic() >= self._look_at:
                # Nobody sends meanwhile: what was not sent is told as not written, so it must not be on its way by now.
                with self._turn:
                    self._account()
                    self._give_up_late(connected)

    def _take_inbox(self) -> None:
        inbox = self._inbox
        while inbox:
            call = inbox.popleft()
            if call.is_wanted:
                self._queue.append(call)
                if call.ends is None:
                    self._due.append(call)
            elif self._calls.get(call.id) is call and call.ends is not None:
                # Its answer may be on its way all the same.
                del self._calls[call.id]
                self._lasting -= 1
                self._goodbyes.append(call.id)

    def _send(self, connected: socket.socket) -> int:
        """Send what the system takes. Returns what is to be waited for, before more can be sent."""
        while True:
            if not self._buffer:
                self._fill()
                if not self._buffer:
                    return 0
            try:
                count = connected.send(self._buffer)
            except (BlockingIOError, ssl.SSLWantWriteError):
                return select.POLLOUT
            except ssl.SSLWantReadError:
                return 0
            except (BrokenPipeError, ConnectionResetError):
                # What it has said before is still read, and then its end.
                self._buffer = memoryview(b"")
                self._is_refusing = True
                return 0
            self._buffer = self._buffer[count:]
            self._moved = time.monotonic()
            self._sent_bytes += count
            while self._begun and self._begun[0][0] <= self._sent_bytes:
                _, call = self._begun.popleft()
                call.has_gone(self._moved)

    def _fill(self) -> None:
        """Take what is to be sent next."""
        if self._is_refusing:
            return
        parts = [frame_of([call_id, None]) for call_id in self._goodbyes]
        self._goodbyes = []
        size = sum(map(len, parts))
        self._sent_bytes, self._begun = 0, deque()
        queue, calls = self._queue, self._calls
        is_sealed = isinstance(self._socket, ssl.SSLSocket)
        while queue and size < PIECE_BYTES:
            call = queue.popleft()
            if not call.is_wanted or call.is_done:
                continue
            self._last_id += 1
            call.id = self._last_id
            calls[call.id] = call
            if call.ends is not None:
                self._lasting += 1
            # How much of what was encrypted has gone is not known.
            call.is_sent = is_sealed
            frame = frame_of([call.id, msgspec.Raw(call.record)])
            parts.append(frame)
            size += len(frame)
            self._begun.append((size, call))
        self._buffer = memoryview(b"".join(parts))

    def _receive(self, connected: socket.socket) -> None:
        while True:
            try:
                data = connected.recv(PIECE_BYTES)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except ConnectionResetError:
                data = b""
            if not data:
                raise _LostError(self._reason_of_end())
            self._heard = time.monotonic()
            for frame in self._parser.take(data):
                self._settle(frame)
            # What was decrypted already would not be noticed by waiting.
            if not (isinstance(connected, ssl.SSLSocket) and connected.pending()):
                return

    def _reason_of_end(self) -> str:
        if self._parser.is_within:
            return "the connection ended in the middle of a frame"
        return self._said or "its server closed the connection"

    def _settle(self, frame: bytes) -> None:
        call_id, is_answer, content = reply_of(frame)
        if call_id == 0:
            self._hear(is_answer, content)
            return
        call = self._calls.pop(call_id, None)
        if call is None:
            if not 0 < call_id <= self._last_id:
                raise StoreUnavailable(f"a reply came to call {call_id}, which was not made")
            return
        if call.ends is not None:
            self._lasting -= 1
        call.settle(_outcome_of(call, is_answer, content))

    def _hear(self, is_answer: bool, content: bytes) -> None:
        """What the server says that is no answer: why it closes, or up to which call it has read."""
        if not is_answer:
            self._said = str(error_of_reply(content))
            return
        self._said = "its server ends"
        last_id = msgspec.msgpack.decode(content, type=int)
        for call in self._calls.values():
            if call.id > last_id:
                call.is_sent = False
        self._is_refusing = True

    # Time

    def _give_up_late(self, connected: socket.socket | None) -> None:
        """Give up what was not answered in time. Where it was sent, the connection is of no use any more."""
        now = time.monotonic()
        self._look_at = now + self._tick_ms / 1000
        is_silent = False
        due = self._due
        while due and (due[0].is_done or due[0].asked + self._timeout <= now):
            if connected is not None and self._is_moving(due[0], now):
                break
            call = due.popleft()
            if call.is_done:
                continue
            is_silent = is_silent or call.id in self._calls
            silence = f"it has not answered for {self._timeout:g} s"
            self._fail(
                call, f"{self._door.where}: {silence}" if connected is not None else f"{self._reason}; {silence}"
            )
        if connected is None:
            if now >= self._lost_at + self._timeout:
                while self._queue:
                    self._fail(self._queue.popleft())
        elif is_silent:
            raise _LostError(f"it has not answered for {self._timeout:g} s")
        elif self._lasting and not due and now >= self._heard + self._timeout / 2:
            asked = WireCall(AskHealth(), codec.encode_request(AskHealth()), _ignore)
            self._queue.append(asked)
            due.append(asked)

    def _is_moving(self, call: WireCall, now: float) -> bool:
        """Whether a large call is still being sent, or a large answer received: that takes as long as it takes."""
        if not call.is_sent and call.id in self._calls:
            return now < self._moved + self._timeout
        return self._parser.is_within and now < self._heard + self._timeout


def _ignore(outcome: Outcome) -> None:
    """That it came says enough."""


def _again(call: WireCall) -> bytes:
    """The record of a call that is asked again: a wait goes on for what is left of its time."""
    if call.ends is None or call.ends == math.inf:
        return call.record
    left = max(0.001, call.ends - time.monotonic())
    return codec.encode_request(msgspec.structs.replace(call.request, timeout=left))


def _outcome_of(call: WireCall, is_answer: bool, content: bytes) -> Outcome:
    request = call.request
    try:
        if not is_answer:
            return Failed(error_of_reply(content))
        if isinstance(request, AskHealth | WaitForOrder | AskCompact):
            return Answered(msgspec.msgpack.decode(content))
        return Answered(codec.decode_answer(request, content))
    except MemoryError:
        kind = UncertainOutcome if type(request) in CHANGES else StoreUnavailable
        return Failed(kind(f"{request.op} was answered, and there was no memory for the answer"))
    except Exception as error:
        # Whatever is wrong with it, somebody waits for it.
        return Failed(InternalError(f"the reply to {request.op} is not what a store answers: {error}"))
