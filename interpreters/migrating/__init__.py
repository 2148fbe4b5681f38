"""One store moved into another of any kind: while nobody writes it, by `migrate`."""

from interpreters.migrating.comparing import STATE
from interpreters.migrating.copying import Copy, migrate

__all__ = ["STATE", "Copy", "migrate"]
