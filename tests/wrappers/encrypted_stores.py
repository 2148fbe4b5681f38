"""Encrypted stores for tests: a store, its keys, and what stands in either in the clear."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from interpreters import Store
from interpreters.stores.memory import MemoryStore
from interpreters.wrappers.encryption import Encrypted
from persist_effects import Effect, Event, passing_over_erased

AT = 1_700_000_000_000_000


def customer_of(name: str) -> str | None:
    """Streams and keys of customers are about them; the rest stands in the clear."""
    parts = name.split("/")
    return f"customer/{parts[1]}" if parts[0] == "customers" and len(parts) > 1 else None


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Pair:
    """A store in memory, what lies in it, and its keys."""

    def __init__(self, **options: Any) -> None:
        self.inner = Store(MemoryStore(clock=lambda: AT))
        self.keys = Store(MemoryStore(clock=lambda: AT))
        self.seconds = Clock()
        self.options = {"subject_of": customer_of, "clock": lambda: AT, "seconds": self.seconds, **options}
        self.store = self.opened()

    def opened(self, **options: Any) -> Store:
        """The same store opened once more, as by another process that shares it."""
        encrypted = Encrypted(self.inner.interpreter, self.keys.interpreter, **{**self.options, **options})
        return Store(encrypted, effects=encrypted.effects)

    def run(self, program: Effect[Any]) -> Any:
        return self.store.run(program)


def names_of(step: Callable[[Any, Event], Any] | None = None) -> Callable[[Any, Event], Any]:
    """A step that gathers what events say, and passes over what was erased."""
    return passing_over_erased(step or (lambda names, event: [*names, event.data["name"]]))


def bytes_of(directory: Path) -> bytes:
    """All bytes of all files in a directory."""
    return b"\n".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


@contextmanager
def both(scheme: str, directory: Path) -> Iterator[tuple[str, str]]:
    """The URLs of a store and of its keys, each in a directory of its own."""
    for name in ("store", "keys"):
        (directory / name).mkdir(exist_ok=True)
    yield tuple(f"{scheme}:{directory}/{name}/data?sync=os" for name in ("store", "keys"))  # type: ignore[misc]


__all__ = ["AT", "Clock", "Pair", "both", "bytes_of", "customer_of", "names_of"]
