"""Group commit: the writes of many threads as one. A lone writer waits for nobody.

The first that comes leads: it commits for all that wait by then. Who comes while it does waits at a gate of its own,
and is let through with its outcome, or as the next leader. That there is a leader is not relied on: an interrupt may
end one between any two steps, so whoever has waited for long tries to lead.
"""

import threading
from collections.abc import Callable, Sequence

from persist_effects.errors import PersistError, UncertainOutcome
from persist_effects.requests import Advance, Failed, Outcome, Transact, Write

WriteRequest = Write | Transact | Advance
"""What several programs may have written by one commit."""

NO_MEMORY = "this process has not enough memory"
NO_MEMORY_NOR_WORD = f"{NO_MEMORY}: whether the commit is on the disk is not known: close the store and open it again"

PATIENCE_SECONDS = 0.1
"""How long a thread waits to be let through before it looks whether anybody leads. A commit may well take longer."""


class _Party:
    """The writes of one thread, which are committed together, and the gate at which it waits."""

    __slots__ = ("gate", "outcomes", "requests")

    def __init__(self, requests: Sequence[WriteRequest]) -> None:
        self.requests = requests
        self.outcomes: list[Outcome] | None = None
        self.gate = threading.Lock()
        self.gate.acquire()


class GroupCommit:
    """Gathers writes for ``commit(requests)``, which one thread at a time calls.

    ``turn`` is held by the one that commits, and by whoever must keep commits away for a while.
    """

    def __init__(self, commit: Callable[[Sequence[WriteRequest]], list[Outcome]]) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: list[_Party] = []
        self._has_leader = False
        self.turn = threading.Lock()
        # Those that a leader has taken, and not told yet. Changed by whoever has the turn.
        self._taken: list[_Party] = []

    def write(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        """The outcomes of these writes, in order, once they are committed."""
        try:
            if not self._waiting and not self._taken and not self.turn.locked():
                # Nobody commits or waits. Where another is quicker, this waits for its turn, and then commits alone.
                with self.turn:
                    if not self._taken:
                        return self._outcomes_of(requests)
            return self._write(_Party(requests))
        except MemoryError as error:
            raise UncertainOutcome(NO_MEMORY_NOR_WORD) from error

    def _write(self, party: _Party) -> list[Outcome]:
        try:
            with self._lock:
                self._waiting.append(party)
                leads, self._has_leader = not self._has_leader, True
            if leads:
                self._lead(party)
            while party.outcomes is None:
                party.gate.acquire(timeout=PATIENCE_SECONDS)
                if party.outcomes is None:
                    self._lead(party)
        except BaseException:
            # An interrupt: what is not on its way yet is not written.
            with self._lock:
                if party in self._waiting:
                    self._waiting.remove(party)
            raise
        return party.outcomes

    def _lead(self, own: _Party) -> None:
        """Commit for all that wait, this party among them, unless another has done so meanwhile."""
        try:
            with self.turn:
                self._settle_taken("the thread that committed was interrupted")
                if own.outcomes is None:
                    with self._lock:
                        self._taken, self._waiting = self._waiting, []
                    try:
                        self._commit_for(self._taken)
                    except BaseException as error:
                        self._settle_taken(f"the commit was interrupted by {error!r}")
                        raise
                    self._taken = []
        finally:
            self._pass_on()

    def _settle_taken(self, reason: str) -> None:
        """Tell those of an interrupted commit. Where another interrupt comes meanwhile, the next leader does it."""
        if self._taken:
            lost = f"{reason}: whether it is on the disk is not known"
            requests = [request for party in self._taken for request in party.requests]
            self._settle(self._taken, [Failed(UncertainOutcome(lost)) for _ in requests])
            self._taken = []

    def _commit_for(self, parties: Sequence[_Party]) -> None:
        if not parties:
            return
        requests = parties[0].requests if len(parties) == 1 else [one for party in parties for one in party.requests]
        self._settle(parties, self._outcomes_of(requests))

    def _outcomes_of(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        try:
            return self._commit(requests)
        except MemoryError:
            # Where it is known that nothing was written, the engine says so by an error of ours.
            return [Failed(UncertainOutcome(NO_MEMORY_NOR_WORD)) for _ in requests]
        except Exception as error:
            return [Failed(_copy(error)) for _ in requests]

    def _settle(self, parties: Sequence[_Party], outcomes: Sequence[Outcome]) -> None:
        """Give each party its share of the outcomes, which are in the order of their writes, and let them through."""
        start = 0
        for party in parties:
            end = start + len(party.requests)
            if party.outcomes is None:
                party.outcomes = list(outcomes[start:end])
            start = end
        for party in parties:
            _open(party)

    def _pass_on(self) -> None:
        """Let one of those that wait lead."""
        with self._lock:
            self._has_leader = bool(self._waiting)
            if self._waiting:
                _open(self._waiting[0])


def _open(party: _Party) -> None:
    if party.gate.locked():  # and not opened before, by a leader that was interrupted while it let others through
        party.gate.release()


def _copy(error: Exception) -> Exception:
    """The same error for each of several programs: a traceback belongs to one."""
    return type(error)(*error.args) if isinstance(error, PersistError) else error
