"""A flow that is conducted by hand: a real store answers what it asks, and the test says what came from outside."""

from collections import Counter

from persist_effects import flow, kv, log, machine
from persist_effects.flow import journal
from persist_effects.flow.defining import Flows
from persist_effects.flow.journal import ANSWER, CANCEL, ERROR, NOTED, PATCHED, STARTED
from persist_effects.flow.requests import Came
from persist_effects.machine import Done

KINDS = {ANSWER: "answer", ERROR: "error", NOTED: "noted", STARTED: "started", CANCEL: "cancel", PATCHED: "patched"}


class TestClock:
    """A clock that tests set, in microseconds since 1970."""

    __test__ = False

    def __init__(self, at=1_000_000_000):
        self.at = at

    def __call__(self):
        return self.at

    def go_on(self, seconds):
        self.at += int(seconds * 1_000_000)


class Conducted:
    """A flow that was taken up. Whatever its conductor asks of the store was answered; it waits for others, or ended.

    Args:
        store: The store.
        flows: The code that the host has.
        flow_id: Which flow.
        token: Whose entries they are.
        rows: Rows that answer in the place of the store's.
        options: Those of `conduct`.
    """

    def __init__(self, store, *flows, flow_id="f-1", token=b"host one", rows=None, **options):
        self.store, self.flow_id = store, flow_id
        self.calls, self.timers = {}, {}
        handlers = {**store.handlers, **(rows or {})}
        self._stands(machine.start(flow.conduct(flow_id, Flows(flows), token, **options), handlers))

    def _stands(self, step):
        self.step = step
        self.asked = None if isinstance(step, Done) else step.request
        if self.asked is None:
            return
        for path in self.asked.withdrawn:
            self.calls.pop(path, None)
            self.timers.pop(path, None)
        self.calls.update((started.path, started) for started in self.asked.calls)
        self.timers.update((timer.path, timer.due) for timer in self.asked.timers)

    @property
    def finished(self):
        """What the conductor has returned."""
        assert isinstance(self.step, Done), f"it waits: {self.asked}"
        return self.step.value

    def come(self, *came):
        """Let these come, all at once."""
        for each in came:
            self.calls.pop(each.path, None)
            self.timers.pop(each.path, None)
        self._stands(self.step.resume(list(came)))
        return self

    def give(self, path, value=None):
        """A call has returned this."""
        assert path in self.calls, f"no call is under way at {path}: {sorted(self.calls)}"
        return self.come(Came(path, value))

    def fail(self, path, error):
        """A call has raised this."""
        assert path in self.calls, f"no call is under way at {path}: {sorted(self.calls)}"
        return self.come(Came(path, error=error))

    def is_due(self, path):
        """A timer's time has come."""
        assert path in self.timers, f"no timer is set at {path}: {sorted(self.timers)}"
        return self.come(Came(path))

    def tell(self):
        """A message came."""
        return self.come(Came(()))

    def signal(self, name, data=None):
        """A signal was sent, and came."""
        self.store.run(flow.send(self.flow_id, name, data))
        return self.tell()

    def cancel(self):
        """The flow was cancelled, and heard of it."""
        self.store.run(flow.cancel(self.flow_id))
        return self.tell()

    def is_gone(self):
        """The host is gone."""
        if not isinstance(self.step, Done):
            self.step.close()


def entries(store, flow_id="f-1"):
    """A journal in short: of each entry its type, or the paths and kinds of its steps."""
    return [entry_in_short(event) for event in store.run(log.read(journal.journal_of(flow_id)))]


def entry_in_short(event):
    if event.type != journal.STEPS:
        return event.type
    return [(step.path, KINDS[step.kind]) for step in journal.decode_steps(event.data["steps"])]


def keys(store, prefix):
    """The keys under a prefix, without it."""
    return [key.removeprefix(prefix) for key in store.run(kv.keys(prefix))]


def counting(store, *types):
    """Rows that count how often requests of these types are made, and the counter."""
    counter = Counter()

    def row(kind):
        def answer(request):
            counter[kind] += 1
            return store.handlers[kind](request)

        return answer

    return {kind: row(kind) for kind in types}, counter
