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
        self.gate: threading.Lock | None = None
        self.is_leader = False


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

    def _lead(self, own: _Party) -> None:
        """Commit for the leader, and for all that wait."""
        parties = [own]
        try:
            with self.turn:
                with self._lock:
                    parties += [party for party in self._waiting if party is not own]
                    self._waiting = []
                self._commit_for(parties)
        except BaseException as error:
            interrupted = f"the commit was interrupted by {error!r}: whether it is on the disk is not known"
            self._settle(parties, [Failed(UncertainOutcome(interrupted)) for party in parties for _ in party.requests])
            raise
        finally:
            self._pass_on(own)

    def _commit_for(self, parties: Sequence[_Party]) -> None:
        requests = parties[0].requests if len(parties) == 1 else [one for party in parties for one in party.requests]
        try:
            outcomes = self._commit(requests)
        except Exception as error:
            outcomes = [Failed(_copy(error)) for _ in requests]
        self._settle(parties, outcomes)

    def _settle(self, parties: Sequence[_Party], outcomes: Sequence[Outcome]) -> None:
        """Give each party its share of the outcomes, which are in the order of their writes, and let them through."""
        start = 0
        for party in parties:
            end = start + len(party.requests)
            if party.outcomes is None:
                party.outcomes = list(outcomes[start:end])
            start = end
        # The first is the leader, which does not wait.
        for party in parties[1:]:
            _open(party)

    def _wait(self, party: _Party, gate: threading.Lock) -> None:
        try:
            gate.acquire()
        except BaseException:
            self._leave(party)
            raise
        if party.outcomes is None:
            # Let through as the next leader, with its writes still among those that wait.
            self._lead(party)

    def _pass_on(self, party: _Party) -> None:
        """Let one of those that wait lead after this one."""
        with self._lock:
            if party in self._waiting:
                self._waiting.remove(party)
            self._has_leader = bool(self._waiting)
            if self._waiting:
                self._waiting[0].is_leader = True
                _open(self._waiting[0])

    def _leave(self, party: _Party) -> None:
        """The thread was interrupted. What is not on its way yet is not written, and if it leads, another one must."""
        with self._lock:
            if party in self._waiting:
                self._waiting.remove(party)
        if party.is_leader:
            self._pass_on(party)


def _open(party: _Party) -> None:
    assert party.gate is not None, "who waits has a gate"
    if party.gate.locked():  # and not opened before, by a leader that was interrupted while it let others through
        party.gate.release()


def _copy(error: Exception) -> Exception:
    """The same error for each of several programs: a traceback belongs to one."""
    return type(error)(*error.args) if isinstance(error, PersistError) else error
