"""A server as a service: told to end by signals, and telling others that it is ready. Needs no store of its own."""

import os
import resource
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress

from interpreters.stores.served.limits import ServingLimits
from interpreters.stores.served.server import LOG, StoreServer
from persist_effects.errors import InvalidRequest

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What ends a service: it answers what it has heard, and closes."""

_OTHER_FILES = 128
"""How many descriptors a service has beside those of its clients, about."""


def run_service(
    server: StoreServer,
    *,
    told: str,
    ready_fd: int | None = None,
    on_ready: Callable[[], None] = lambda: None,
    on_end: Callable[[], None] = lambda: None,
) -> int | None:
    """Serve until a signal comes. Only in the main thread.

    Args:
        server: The server.
        told: What is logged once it is ready.
        ready_fd: A descriptor to which ``ready`` and a line's end are written then, and which is closed.
        on_ready: Called then, too.
        on_end: Called when it begins to end.

    Returns:
        The signal that ended it; None where it was stopped otherwise.

    Raises:
        InvalidRequest: If nothing can be written to the descriptor.
    """
    if ready_fd is not None:
        _check_descriptor(ready_fd)
    take_descriptors(server.limits)

    def tell_ready() -> None:
        LOG.info("%s", told)
        if ready_fd is not None:
            # Who wanted to know may be gone.
            with suppress(OSError):
                os.write(ready_fd, b"ready\n")
            os.close(ready_fd)
        _notify("READY=1", f"STATUS={told}", f"MAINPID={os.getpid()}")
        on_ready()

    def tell_end() -> None:
        _notify("STOPPING=1")
        on_end()

    ended_by = server.run(on_ready=tell_ready, on_end=tell_end, signals=SIGNALS)
    LOG.info("ended; %s requests were answered", server.tally.request_count)
    return ended_by


def _check_descriptor(number: int) -> None:
    try:
        os.fstat(number)
    except (OSError, OverflowError) as error:
        raise InvalidRequest(f"the descriptor {number}, to tell that it is ready, cannot be used: {error}") from error


def take_descriptors(limits: ServingLimits) -> None:
    """Have room for as many clients as there may be, where the system lets this process.

    Args:
        limits: How many there may be.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.max_connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    given = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    if given < wanted:
        LOG.warning("this process may have %d descriptors, too few for %d clients", given, limits.max_connections)


def _notify(*lines: str) -> None:
    """Tell systemd, where it started this."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as telling:
            telling.sendto("\n".join(lines).encode(), f"\0{path[1:]}" if path.startswith("@") else path)
    except OSError as error:
        LOG.warning("systemd cannot be told: %s: %s", path, error)


def without_secrets(url: str) -> str:
    """A store's URL as a log may have it.

    Args:
        url: The URL.

    Returns:
        The same without what stands before an @ in an address, and without options.

    >>> without_secrets("postgresql://ada:secret@db/app?sslmode=require"), without_secrets("file:var/app?sync=os")
    ('postgresql://db/app', 'file:var/app')
    """
    scheme, mark, address = url.partition("?")[0].partition("//")
    return f"{scheme}{mark}{address.rpartition('@')[2]}"


def told_of(url: str, doors: Sequence[str]) -> str:
    """What is logged of a service that is ready."""
    return f"serving {without_secrets(url)} at {', '.join(doors)}, process {os.getpid()}"
