"""Schedules of flows: what is due, given the times of a cron text, of when it was last seen to, and of now.

Each time at which a schedule fires begins one flow, under an id that has this time in it. So several hosts, restarts,
and clocks that are set forth and back begin it once. The time up to which a schedule was seen to is kept in the store,
under ``flow-schedule/<name>``, and never goes back. It is there from when a host first has the schedule: what was
before that is not missed.

For times that passed while no host was there, users of systemd's ``Persistent=true``, and of anacron, know one run at
once, whichever number was missed; those of Temporal know all that lie within a window. Here the first is what happens,
and ``catch_up=True`` has the second, up to `CATCH_UP_LIMIT`, the newest ones.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property
from itertools import takewhile
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from persist_effects import flow as flows_
from persist_effects import kv
from persist_effects.clock import now
from persist_effects.errors import FlowExists, InvalidRequest, describe
from persist_effects.event import check_items, check_name
from persist_effects.flow import journal
from persist_effects.flow.defining import flow_code
from persist_effects.flow.requests import check_flow_id
from persist_effects.machine import Effect, all_of
from persist_effects.programs import program

CATCH_UP_LIMIT = 1_000
"""How many flows are begun at most for times that were missed. Older times are passed over, and the log says so."""

LOG = logging.getLogger("persist_effects.flows")

_MICROSECONDS = 1_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = 5
_FIRST_SPAN = 3_600 * _MICROSECONDS
_SPAN_FACTOR = 8


class Due(NamedTuple):
    """The times for which flows are to be begun, in order, and whether earlier ones are passed over by the limit."""

    times: list[int]
    is_cut: bool


@dataclass(frozen=True)
class Schedule:
    """When a flow is begun, again and again.

    Two of its flows may go on at once. Where they should not, give it a queue with ``concurrency=1``.

    Args:
        name: What it is called. Its flows are called ``<name>/2026-11-28T09:00Z``, after the time in UTC.
        cron: Five fields, as in ``"0 9 * * MON-FRI"``: minute, hour, day of the month, month, day of the week. As
            Debian's cron has it where clocks go forth or back: what would be in the hour that is left out begins right
            behind it, and what is in the hour that comes twice begins once, unless it is for every hour or minute.
        flow: The flow.
        args: Its arguments, each time.
        time_zone: Whose clocks the fields are read by, such as ``"Europe/Berlin"``.
        queue: In which queue its flows wait for their turn; empty: in none.
        catch_up: What becomes of times that passed while no host was there. False: the newest one begins, late.
            True: all of them do, at most the newest `CATCH_UP_LIMIT`.

    Raises:
        InvalidRequest: If any of these is not what it should be, or cronsim is not installed.

    >>> from datetime import datetime, timezone
    >>> def report(region: str): yield
    >>> schedule = Schedule("daily", "0 9 * * *", report, ("north",), time_zone="Europe/Berlin")
    >>> noon = int(datetime(2026, 11, 28, 12, tzinfo=timezone.utc).timestamp() * 1_000_000)
    >>> schedule.flow_id(schedule.next_after(noon))
    'daily/2026-11-29T08:00Z'
    """

    name: str
    cron: str
    flow: Callable[..., Effect[Any]]
    args: tuple[Any, ...] = ()
    _: KW_ONLY
    time_zone: str = "UTC"
    queue: str = ""
    catch_up: bool = False

    def __post_init__(self) -> None:
        check_name("the name of a schedule", self.name)
        check_flow_id(self.flow_id(0))
        object.__setattr__(self, "args", check_items(f"args of schedule {self.name!r}", self.args, "a tuple"))
        flow_code(self.flow).encode_args(self.args)
        if self.queue != "":
            check_name(f"the queue of schedule {self.name!r}", self.queue)
        if type(self.catch_up) is not bool:
            raise InvalidRequest(f"catch_up of schedule {self.name!r} is {describe(self.catch_up)}: give True or False")
        self._check_times()

    def flow_id(self, time: int) -> str:
        """The id of the flow for a time at which it fires, in microseconds since 1970."""
        return f"{self.name}/{_told(time)}"

    def next_after(self, time: int) -> int:
        """When it fires next.

        Args:
            time: Microseconds since 1970.

        Returns:
            The first time after that, in microseconds since 1970.
        """
        return next(self._times_after(time))

    def due(self, after: int, through: int) -> Due:
        """For which times flows are to be begun.

        Args:
            after: Up to when it was seen to, in microseconds since 1970.
            through: Now.

        Returns:
            Those times, and whether others before them are passed over though it catches up.
        """
        limit = CATCH_UP_LIMIT if self.catch_up else 1
        # What was missed may be years of minutes, of which the last ones are wanted: looked for ever further back.
        span = _FIRST_SPAN
        while True:
            start = max(after, through - span)
            times = list(takewhile(lambda time: time <= through, self._times_after(start)))
            if start == after or len(times) > limit:
                return Due(times[-limit:], self.catch_up and len(times) > limit)
            span *= _SPAN_FACTOR

    def _times_after(self, time: int) -> Iterator[int]:
        from cronsim import CronSim

        latest = time
        for moment in CronSim(self.cron, (_EPOCH + timedelta(microseconds=time)).astimezone(self._zone)):
            found = (moment - _EPOCH) // timedelta(microseconds=1)
            # Where clocks are changed, it may give a time again, or one before.
            if found > latest:
                latest = found
                yield found

    @cached_property
    def _zone(self) -> tzinfo:
        if self.time_zone == "UTC":
            return UTC
        try:
            return ZoneInfo(self.time_zone)
        except (LookupError, ValueError, TypeError, OSError) as error:
            raise InvalidRequest(
                f"time_zone of schedule {self.name!r} is {self.time_zone!r}, which is not known here: give a name such "
                "as 'UTC' or 'Europe/Berlin'. Where the machine has no time zones: pip install tzdata"
            ) from error

    def _check_times(self) -> None:
        try:
            from cronsim import CronSim, CronSimError
        except ModuleNotFoundError as error:
            raise InvalidRequest("schedules need cronsim, of the extra `flows`: pip install cronsim") from error
        if type(self.cron) is not str or len(self.cron.split()) != _FIELDS:
            raise InvalidRequest(
                f"cron of schedule {self.name!r} is {self.cron!r}: give five fields, minute, hour, day of the month, "
                "month, day of the week, as in '0 9 * * MON-FRI'"
            )
        try:
            CronSim(self.cron, _EPOCH)
        except CronSimError as error:
            raise InvalidRequest(f"cron of schedule {self.name!r} is {self.cron!r}: {error}") from error
        if next(self._times_after(0), None) is None:
            raise InvalidRequest(f"cron of schedule {self.name!r} is {self.cron!r}, which is never")


def _told(time: int) -> str:
    return (_EPOCH + timedelta(microseconds=time)).strftime("%Y-%m-%dT%H:%MZ")


class SeenTo(NamedTuple):
    """What came of seeing to a schedule: the ids of the flows that were due, and when the next one is."""

    flow_ids: list[str]
    now: int
    next: int


@program
def see_to(schedule: Schedule, token: bytes = b"") -> Effect[SeenTo]:
    """Begin the flows of a schedule that are due. Where it is done twice, or by two, each is begun once.

    Args:
        schedule: The schedule.
        token: Of the host that begins them, where they are in no queue.

    Returns:
        Which were due, and when the next one is.

    >>> from interpreters import open_store
    >>> def report(): yield
    >>> clock = [0]
    >>> store = open_store("memory:", clock=lambda: clock[0])
    >>> schedule = Schedule("often", "* * * * *", report, catch_up=True)
    >>> store.run(see_to(schedule)).flow_ids
    []
    >>> clock = [180_000_000]
    >>> store.run(see_to(schedule)).flow_ids
    ['often/1970-01-01T00:01Z', 'often/1970-01-01T00:02Z', 'often/1970-01-01T00:03Z']
    """
    key = journal.SCHEDULE + schedule.name
    moment = yield from now()
    seen = yield from kv.get(key)
    if seen is None:
        yield from kv.put_expect(key, 0, moment)
        return SeenTo([], moment, schedule.next_after(moment))
    due = schedule.due(seen, moment)
    if due.is_cut:
        LOG.warning(
            "schedule %r: flows are begun from %s on, the newest %d; what was missed between %s and then is not",
            schedule.name, _told(due.times[0]), CATCH_UP_LIMIT, _told(seen),
        )  # fmt: skip
    if due.times:
        yield from all_of(*(_begin(schedule, time, token) for time in due.times))
        yield from kv.update(key, lambda there: max(there or 0, due.times[-1]))
    return SeenTo([schedule.flow_id(time) for time in due.times], moment, schedule.next_after(max(moment, seen)))


def _begin(schedule: Schedule, time: int, token: bytes) -> Effect[None]:
    flow_id, queue = schedule.flow_id(time), schedule.queue
    tags = {"schedule": schedule.name}
    try:
        yield from flows_.begin(
            flow_id, schedule.flow, *schedule.args, tags=tags, queue=queue, token=b"" if queue else token
        )
    except FlowExists as error:
        # By a host that has it with other arguments, before or behind a change of the code.
        LOG.warning("schedule %r: %s", schedule.name, error)


def schedules_by_name(schedules: Iterable[Schedule]) -> dict[str, Schedule]:
    """Schedules by their names. Raises `InvalidRequest` for two of one name, and what is not a `Schedule`."""
    named: dict[str, Schedule] = {}
    for schedule in check_items("schedules", schedules, "a list of Schedule"):
        if not isinstance(schedule, Schedule):
            raise InvalidRequest(f"a schedule of the host is {describe(schedule)}: give a Schedule")
        if schedule.name in named:
            raise InvalidRequest(f"two schedules are called {schedule.name!r}: give one of them another name")
        named[schedule.name] = schedule
    return named
