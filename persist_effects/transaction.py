"""Several writes as one: all of them happen, or none."""

from collections.abc import Iterable
from typing import Any

from persist_effects.event import check_items
from persist_effects.machine import Effect, perform
from persist_effects.programs import program
from persist_effects.requests import Check, Conflict, Transact, Write


@program
def transact(*writes: Write, checks: Iterable[Check] = (), noting: bool = False) -> Effect[list[Any] | Conflict]:
    """Perform write requests all or nothing, and return the list of their answers, or the first `Conflict`.

    The checks are made first, on what was there before; each write sees those before it. Use `ExpectSeq` and
    `ExpectRevision` for what the decision read and the transaction does not write: else two transactions may each
    pass by the other. With ``noting``, the last write, a put of a dict or an append of one draft, also keeps the
    answers of those before it, under ``"answers"`` in the dict or in the draft's meta.

    >>> from interpreters import open_store
    >>> from persist_effects.requests import ExpectRevision, KvPut
    >>> store = open_store("memory:")
    >>> store.run(transact(KvPut("a", 1), KvPut("b", 2), checks=[ExpectRevision("c", 0)]))
    [1, 2]
    """
    checked = check_items("checks", checks, "a list of ExpectSeq and ExpectRevision")
    return (yield from perform(Transact(writes, checked, noting)))
