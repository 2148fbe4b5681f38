"""What the tests of moves share: what must be the same in both stores, and a process that is gone."""

from typing import Any

from interpreters import Store
from persist_effects import kv, log


def read_model(store: Store, but: str = "") -> Any:
    """All that must be the same in both."""
    store.wait_for_order()
    events = [(e.stream, e.seq, e.type, e.at, e.data, e.meta) for e in store.run(log.read_all())]
    entries = [pair for pair in store.run(kv.entries()) if pair[0] != but]
    order = [key for key, _ in sorted(entries, key=lambda pair: pair[1].revision)]
    values = [(key, entry.value) for key, entry in entries if not key.startswith("follow/")]
    last = {name: store.run(log.last_seq(name)) for name in store.run(log.streams())}
    return events, order, values, last


def stopping_after(interpreter: Any, requests: int, error: type[Exception]) -> Any:
    """The same interpreter, for a process that is gone after so many requests."""
    left = [requests]

    def counted(row):
        def ask(request):
            left[0] -= 1
            if left[0] < 0:
                raise error
            return row(request)

        return ask

    class Counted:
        blocking = True
        watch = interpreter.watch
        capabilities = interpreter.capabilities

        def wait_for_order(self, timeout: float) -> None:
            Store(interpreter).wait_for_order(timeout)

        def __init__(self) -> None:
            self.handlers = {kind: counted(row) for kind, row in interpreter.handlers.items()}

        def close(self) -> None:
            """The store that it is of is closed by its owner."""

    return Counted()
