"""Group commit: the writes of many threads as one. A lone writer waits for nobody.

The first that comes leads: it commits for all that wait by then. Who comes while it does waits at a gate of its own,
and is let through with its outcome, or as the next leader.
"""

import threading
from collections.abc import Callable, Sequence

from interpreters.file.staging import WriteRequest
from persist_effects.errors import PersistError, UncertainOutcome
from persist_effects.requests import Failed, Outcome


class Ticket:
    """A write that waits for its commit."""

    __slots__ = ("outcome", "request")

    def __init__(self, request: WriteRequest) -> None:
        self.request = request
        self.outcome: Outcome | None = None


class _Party:
    """The tickets of one thread, which are committed together, and the gate at which it waits."""

    __slots__ = ("gate", "is_done", "is_leader", "tickets")

    def __init__(self, tickets: Sequence[Ticket]) -> None:
        self.tickets = tickets
        self.is_leader = False
        self.is_done = False
        self.gate = threading.Lock()
        self.gate.acquire()


class GroupCommit:
    """Gathers writes for ``commit(requests)``, which one thread at a time calls.

    ``turn`` is held by the one that commits, and by whoever must keep commits away for a while.
    """

    def __init__(self, commit: Callable[[list[Ticket]], None]) -> None:
        self._commit = commit
        self._lock = threading.Lock()
        self._waiting: list[_Party] = []
        self._has_leader = False
        self.turn = threading.Lock()

    def write(self, requests: Sequence[WriteRequest]) -> list[Outcome]:
        """The outcomes of these writes, in order, once they are committed."""
        tickets = [Ticket(request) for request in requests]
        party = None
        with self._lock:
            if self._has_leader:
                party = _Party(tickets)
                self._waiting.append(party)
            else:
                self._has_leader = True
        if party is None:
            self._lead(tickets)
        else:
            self._wait(party)
        return [_outcome_of(ticket) for ticket in tickets]

    def _lead(self, own: list[Ticket]) -> None:
        """Commit the leader's own tickets, if they do not wait, and those of all that do."""
        try:
            with self.turn:
                with self._lock:
                    parties, self._waiting = self._waiting, []
                self._commit_for(own + [ticket for party in parties for ticket in party.tickets], parties)
        finally:
            self._pass_on()

    def _commit_for(self, tickets: list[Ticket], parties: Sequence[_Party]) -> None:
        try:
            self._commit(tickets)
        except Exception as error:
            for ticket in tickets:
                ticket.outcome = Failed(_copy(error))
        except BaseException as error:
            interrupted = f"the commit was interrupted by {error!r}: whether it is on the disk is not known"
            for ticket in tickets:
                ticket.outcome = ticket.outcome or Failed(UncertainOutcome(interrupted))
            raise
        finally:
            for party in parties:
                party.is_done = True
                party.gate.release()

    def _wait(self, party: _Party) -> None:
        try:
            party.gate.acquire()
        except BaseException:
            self._leave(party)
            raise
        if not party.is_done:
            # Let through as the next leader, with its tickets still among those that wait.
            self._lead([])

    def _pass_on(self) -> None:
        with self._lock:
            self._has_leader = bool(self._waiting)
            if self._waiting:
                self._waiting[0].is_leader = True
                self._waiting[0].gate.release()

    def _leave(self, party: _Party) -> None:
        """The thread was interrupted. What is not on its way yet is not written, and if it leads, another one must."""
        with self._lock:
            if party in self._waiting:
                self._waiting.remove(party)
        if party.is_leader:
            self._pass_on()


def _outcome_of(ticket: Ticket) -> Outcome:
    assert ticket.outcome is not None, "a party that is done has its outcomes"
    return ticket.outcome


def _copy(error: Exception) -> Exception:
    """The same error for each of several programs: a traceback belongs to one."""
    return type(error)(*error.args) if isinstance(error, PersistError) else error
