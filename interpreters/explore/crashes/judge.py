"""What is checked of every image that a crash leaves: it opens, shows what was promised, and works on."""

from collections.abc import Sequence
from typing import Any, cast

from interpreters.disk.crashing import CrashDisk, Image, SteadyDisk
from interpreters.explore.crashes.memo import End, Memo
from interpreters.explore.crashes.simulated import NO_EFFECTS, Contents, contents, difference, engine_of, over_disk
from interpreters.explore.crashes.workload import Setting, WorkloadMoment
from interpreters.explore.inputs import CheckOfWrites
from interpreters.explore.limits import outcome_of_check
from interpreters.explore.report import Problem
from interpreters.explore.words import told_error
from persist_effects import kv, log
from persist_effects.errors import CorruptStore
from persist_effects.machine import Effect, Handlers, outcome_of

_PROBE = "probe of a recovered store"


class Judge:
    """Judges images after crashes of one run of a workload. The same image is recovered once."""

    def __init__(self, setting: Setting, check: CheckOfWrites | None, *, boot: int) -> None:
        self._setting = setting
        self._check = check
        self._boot = boot
        self._recoveries: dict[int, Memo[Contents]] = {}
        # By image: the same one comes up again where more, or less, is to be expected of it.
        self._recovered: dict[Any, tuple[End[Contents], CrashDisk, frozenset[str]]] = {}
        self._works_on: dict[frozenset[tuple[str, bytes]], tuple[Problem | None, frozenset[str]]] = {}
        self._checked: dict[Any, tuple[Problem | None, frozenset[str]]] = {}

    def forget_checks(self) -> None:
        """Another run begins, in which others may be acknowledged after as many commits."""
        self._checked.clear()

    def recover(self, image: Image, crashes: int) -> tuple[End[Contents], CrashDisk]:
        """Open the store after so many crashes and read all of it; the disk as it is then."""
        memo = self._recoveries.get(crashes)
        if memo is None:
            memo = self._recoveries[crashes] = Memo(lambda: self.recovery(crashes))
        key = crashes, frozenset(image.items())
        if key not in self._recovered:
            fresh = SteadyDisk(image)
            self._recovered[key] = memo.run(fresh), fresh, frozenset(fresh.paths_read)
        end, on, paths_read = self._recovered[key]
        on.paths_read = set(paths_read)
        return end, on

    def recovery(self, crashes: int) -> Effect[Contents]:
        """The program that opens the store after so many crashes, and reads all of it."""
        return self._opened(self._boot + crashes, contents())

    def judge(
        self, end: End[Contents], on: CrashDisk, moment: WorkloadMoment, history: Sequence[Contents], *, is_silent: bool
    ) -> Problem | None:
        """What is wrong, if anything, with a state that recovered to this end.

        ``is_silent``: a fault was met that no store can find out at once, so that damage may be reported, and the last
        commits may be missing, since nothing that came after them proves that they were on the disk.
        """
        if end.error is not None:
            if is_silent and isinstance(end.error, CorruptStore):
                return None
            return Problem("the store does not open", "a store that opens", f"{type(end.error).__name__}: {end.error}")
        shown = end.value
        assert shown is not None, "a recovery that raises nothing has read the store"
        low = moment.commits_proved if is_silent else moment.commits_acked
        allowed = history[low : moment.commits_issued + 1]
        if shown not in allowed:
            return _misfit(shown, history, moment)
        if is_silent:
            # Damage that nobody has looked at yet may still be reported.
            return None
        key = frozenset(on.image().items())
        if key not in self._works_on:
            after = SteadyDisk(on.image())
            self._works_on[key] = self._look_whether_it_works_on(after, shown), frozenset(after.paths_read)
        problem, paths = self._works_on[key]
        on.paths_read |= paths
        return problem or self._look_at_invariant(key, on, moment)

    # The store goes on

    def _look_whether_it_works_on(self, on: CrashDisk, shown: Contents) -> Problem | None:
        again = self._boot_again(on, 50, contents())
        if again.error is not None:
            return Problem("the store is not usable afterwards", "it to open again", repr(again.error))
        if again.value != shown:
            return Problem("recovering twice changes something", *difference(cast(Contents, again.value), shown))
        given = self._boot_again(on, 51, _write_something())
        if given.error is not None:
            return Problem("the store is not usable afterwards", "an append and a put", repr(given.error))
        after = self._boot_again(on, 52, contents())
        if after.error is not None:
            return Problem("the store is not usable afterwards", "it to open after a write", repr(after.error))
        return _problem_of_probe(shown, cast(tuple[int, int, int], given.value), cast(Contents, after.value))

    def _boot_again(self, on: CrashDisk, boots: int, program: Effect[Any], effects: Handlers = NO_EFFECTS) -> End[Any]:
        return Memo(lambda: self._opened(self._boot + boots, program, effects)).run(on)

    def _opened(self, boot: int, program: Effect[Any], effects: Handlers = NO_EFFECTS) -> Effect[Any]:
        engine = engine_of(boot, self._setting.segment_bytes)
        yield from engine.open()
        return (yield from over_disk(engine, program, effects))

    # The user's invariant

    def _look_at_invariant(
        self, key: frozenset[tuple[str, bytes]], on: CrashDisk, moment: WorkloadMoment
    ) -> Problem | None:
        if self._check is None:
            return None
        at = (key, len(moment.acked), moment.commits_issued, len(moment.maybe), len(moment.performed))
        if at not in self._checked:
            after = SteadyDisk(on.image())
            self._checked[at] = self._run_check(self._check, after, moment), frozenset(after.paths_read)
        problem, paths = self._checked[at]
        on.paths_read |= paths
        return problem

    def _run_check(self, check: CheckOfWrites, on: CrashDisk, moment: WorkloadMoment) -> Problem | None:
        limit = self._setting.requests_limit
        program = outcome_of_check(check, list(moment.acked), list(moment.maybe), requests_limit=limit)
        end = self._boot_again(on, 99, program, self._effects_after(moment))
        failure = end.error or end.value
        return None if failure is None else Problem("invariant", "the check to pass", told_error(failure))

    def _effects_after(self, moment: WorkloadMoment) -> Handlers:
        """Effects of its own for a check, in the state in which the workload had brought its own."""
        effects = self._setting.new_effects()
        for request in moment.performed:
            outcome_of(request, effects)
        return effects


def _write_something() -> Effect[tuple[int, int, int]]:
    """Append and put; the sequence number, position and revision that were given."""
    event = yield from log.append(_PROBE, "probed", {"is": "there"})
    revision = yield from kv.put(_PROBE, event.seq)
    return event.seq, event.position, revision


def _problem_of_probe(before: Contents, given: tuple[int, int, int], after: Contents) -> Problem | None:
    seq, position, revision = given
    last_seq = before.streams.get(_PROBE, (0, 0, []))[0]
    highest = max((number for number, _ in before.keys.values()), default=0)
    if seq != last_seq + 1 or position <= before.position or revision <= highest:
        return Problem(
            "a number goes back",
            f"sequence number {last_seq + 1}, a position past {before.position}, a revision past {highest}",
            f"sequence number {seq}, position {position}, revision {revision}",
        )
    wanted_keys = {**before.keys, _PROBE: (revision, seq)}
    streams = {name: shown for name, shown in after.streams.items() if name != _PROBE}
    is_right = (
        after.keys == wanted_keys
        and streams == {name: shown for name, shown in before.streams.items() if name != _PROBE}
        and after.streams[_PROBE][0] == seq
        and after.order[-1] == (position, _PROBE, seq)
        and after.order[:-1] == before.order
    )
    if is_right:
        return None
    return Problem("the store is not usable afterwards", "what was written before and after", f"{after!r:.300}")


def _misfit(shown: Contents, history: Sequence[Contents], moment: WorkloadMoment) -> Problem:
    if shown in history[: moment.commits_acked]:
        return Problem("an acknowledged commit is lost", *difference(shown, history[moment.commits_acked]))
    wanted = history[moment.commits_acked]
    kind = "half a commit, or what was dropped or overwritten, is there"
    return Problem(kind, *difference(shown, wanted))
