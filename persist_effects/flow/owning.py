"""A flow's journal as the host that owns it writes it: one entry at a time, each only where the one before is its last.

Of two hosts which both take a flow for theirs, one writes: each entry is appended with its expected sequence number. An
entry whose answer was lost is looked for before anything follows it.
"""

from typing import Any, cast

import msgspec

from persist_effects.errors import OwnershipLost, UncertainOutcome
from persist_effects.event import Draft
from persist_effects.flow import journal
from persist_effects.flow.journal import JournalStep, Open
from persist_effects.machine import Effect, perform
from persist_effects.requests import (
    ANSWERS,
    Append,
    Appended,
    Conflict,
    ExpectRevision,
    KvPut,
    Read,
    Request,
    Transact,
    TruncateThrough,
    Write,
)


class OwnedJournal:
    """The journal of one flow, and the key by which others see how it stands."""

    def __init__(self, flow_id: str, token: bytes) -> None:
        self._id = flow_id
        self._token = token
        self._stream = journal.journal_of(flow_id)
        # The last sequence number of the journal, and whether its last entry is of this host.
        self._seq = 0
        self._is_owner = False
        # How others see that it stands, and the revision of that when it was taken up; None: it was begun by this host,
        # and never read.
        self._open = cast(Open, None)
        self._open_revision: int | None = None
        # When the last entry was written, and the latest time that the flow has seen.
        self._entry_at = 0
        self._latest = 0
        # Steps that the flow knows and the journal does not, their size, and the keys that go with them.
        self._untold: list[Any] = []
        self._untold_bytes = 0
        self._obsolete: list[Write] = []

    def _tell(self, step: JournalStep, size_bytes: int = 0) -> None:
        self._untold.append(step)
        self._untold_bytes += size_bytes + len(step.known)

    def _restate(self, state: str) -> None:
        """Have others see how the flow stands, with the next entry."""
        self._open = msgspec.structs.replace(self._open, state=state, error=None)
        self._obsolete.append(KvPut(journal.OPEN + self._id, self._open))

    def _claim(self) -> Effect[None]:
        """Take the flow over, before anything that it has begun is begun again."""
        claimed = Draft(journal.CLAIMED, {"token": self._token})
        yield from self._append(claimed)

    def _append(
        self, draft: Draft, writes: tuple[Write, ...] = (), checks: tuple[Any, ...] = (), is_noted: bool = False
    ) -> Effect[Any]:
        """Append an entry, together with writes. A conflict about the journal means that it is another's."""
        entry = Append(self._stream, (draft,), self._seq)
        if not self._is_owner:
            self._open = msgspec.structs.replace(self._open, owner=self._token)
            writes = (*writes, KvPut(journal.OPEN + self._id, self._open))
            if self._open_revision is not None:
                # Another host may have taken it since it was found to be nobody's.
                checks = (*checks, ExpectRevision(journal.OPEN + self._id, self._open_revision))
        request: Request[Any] = Transact((*writes, entry), checks, is_noted) if writes or checks else entry
        answer: Any = None
        is_uncertain = False
        while answer is None:
            try:
                answer = yield from perform(request)
            except UncertainOutcome:
                is_uncertain = True
                answer = yield from self._read_back(draft, writes)
            if isinstance(answer, Conflict):
                of_journal = answer.name == self._stream and answer.kind == "stream"
                of_journal |= not self._is_owner and answer.name == journal.OPEN + self._id
                if of_journal or is_uncertain:
                    # It may be this very entry, which was written after all.
                    answer = (yield from self._read_back(draft, writes)) or answer
                if of_journal and isinstance(answer, Conflict):
                    raise OwnershipLost(self._id, self._seq + 1)
        if type(answer) is Conflict:
            return answer
        appended: Appended = answer if type(answer) is Appended else cast(list[Any], answer)[-1]
        self._seq, self._entry_at, self._is_owner = appended.last_seq, appended.at, True
        self._latest = max(self._latest, appended.at)
        return (answer,) if type(answer) is Appended else answer

    def _append_last(self, draft: Draft, writes: list[Write]) -> Effect[None]:
        """Append what stands in the place of all before it, which is dropped in the same transaction."""
        yield from self._append(draft, (TruncateThrough(self._stream, self._seq), *writes))

    def _read_back(self, draft: Draft, writes: tuple[Write, ...]) -> Effect[Any]:
        """What an append was answered whose answer was lost, if it was carried out; else None.

        Only this host writes with its token, one entry at a time. So an entry with it, behind the last one, is this
        one; or one that was on its way when this host could not reach the store, and took the flow up again.
        """
        page = yield from perform(Read(self._stream, self._seq, limit=1))
        if not page.events:
            return None
        (event,) = page.events
        if event.data.get("token") != self._token:
            raise OwnershipLost(self._id, event.seq)
        if event.type != draft.type or (event.type == journal.STEPS and event.data["steps"] != draft.data["steps"]):
            raise UncertainOutcome(
                f"flow {self._id!r} has an entry {event.seq} of this host which it had not seen: it is to be taken up "
                "again"
            )
        noted = (event.meta or {}).get(ANSWERS)
        answers = [None] * len(writes) if noted is None else journal.noted_answer(Transact(writes), noted)
        return [*answers, Appended(event.seq, event.seq, event.position, event.at)]
