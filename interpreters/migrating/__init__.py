"""One store moved into another of any kind: while nobody writes it, by `migrate`, or in use, by `mirror`."""

from interpreters.migrating.comparing import STATE
from interpreters.migrating.copying import Copy, migrate
from interpreters.migrating.mirroring import Mirror, Moving, mirror

__all__ = ["STATE", "Copy", "Mirror", "Moving", "migrate", "mirror"]
