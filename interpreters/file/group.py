"""Group commit: the writes of many threads as one. A lone writer waits for nobody.

The first that comes leads: it commits for all that wait by then. Who comes while it does waits at a gate of its own,
and is let through with its outcome, or as the next leader.
"""

import threading
from collections.abc import Callable, Sequence

from interpreters.file.staging import WriteRequest
from persist_effects.errors import PersistError, UncertainOutcome
from persist_effects.requests import Failed, Outcome


class _Party:
    """The writes of one thread, which are committed together, and the gate at which it waits."""

    __slots__ = ("gate", "is_leader", "outcomes", "requests")

    def __init__(self, requests: Sequence[WriteRequest]) -> None:
        self.requests = requests
        self.outcomes: list[Outcome] | None = None
        self.is_leader = False
        self.gate: threading.Lock | None = None

    def let_through(self) -> None:
        """Let the thread go on that waits at the gate."""
        if self.gate is not None:
            self.gate.release()


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

    def write(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        """The outcomes of these writes, in order, once they are committed."""
        party = _Party(requests)
        with self._lock:
            if self._has_leader:
                party.gate = threading.Lock()
                party.gate.acquire()
                self._waiting.append(party)
            else:
                self._has_leader = True
        if party.gate is None:
            self._lead(party)
        else:
            self._wait(party, party.gate)
        assert party.outcomes is not None, "a party that is through has its outcomes"
        return party.outcomes

    def _lead(self, own: _Party | None) -> None:
        """Commit for the leader, if it does not wait, and for all that do."""
        try:
            with self.turn:
                with self._lock:
                    parties, self._waiting = self._waiting, []
                self._commit_for(parties if own is None else [own, *parties])
        finally:
            self._pass_on()

    def _commit_for(self, parties: Sequence[_Party]) -> None:
        requests = parties[0].requests if len(parties) == 1 else [one for party in parties for one in party.requests]
        try:
            outcomes = self._commit(requests)
        except Exception as error:
            outcomes = [Failed(_copy(error)) for _ in requests]
        except BaseException as error:
            interrupted = f"the commit was interrupted by {error!r}: whether it is on the disk is not known"
            _settle(parties, [Failed(UncertainOutcome(interrupted)) for _ in requests])
            raise
        _settle(parties, outcomes)

    def _wait(self, party: _Party, gate: threading.Lock) -> None:
        try:
            gate.acquire()
        except BaseException:
            self._leave(party)
            raise
        if party.outcomes is None:
            # Let through as the next leader, with its writes still among those that wait.
            self._lead(None)

    def _pass_on(self) -> None:
        with self._lock:
            self._has_leader = bool(self._waiting)
            if self._waiting:
                self._waiting[0].is_leader = True
                self._waiting[0].let_through()

    def _leave(self, party: _Party) -> None:
        """The thread was interrupted. What is not on its way yet is not written, and if it leads, another one must."""
        with self._lock:
            if party in self._waiting:
                self._waiting.remove(party)
        if party.is_leader:
            self._pass_on()


def _settle(parties: Sequence[_Party], outcomes: list[Outcome]) -> None:
    """Give each party its share of the outcomes, which are in the order of their writes, and let it through."""
    start = 0
    for party in parties:
        end = start + len(party.requests)
        party.outcomes = outcomes if len(parties) == 1 else outcomes[start:end]
        start = end
        party.let_through()


def _copy(error: Exception) -> Exception:
    """The same error for each of several programs: a traceback belongs to one."""
    return type(error)(*error.args) if isinstance(error, PersistError) else error
