"""Commands for stores in other processes: serve one, and ask how it is."""

import logging
import signal
import sys
from pathlib import Path
from typing import Annotated, Any, Protocol, cast

import typer

from interpreters import serving
from interpreters.cli.exits import exit_codes
from interpreters.cli.inputs import AsJson
from interpreters.cli.output import lines_of_numbers, print_answer
from interpreters.opening import open_store
from interpreters.stores.served.limits import ServingLimits
from persist_effects.errors import InvalidRequest

_LIMITS = ServingLimits()


_LIMIT_NAMES = frozenset(ServingLimits.__struct_fields__)


class _Healthy(Protocol):
    def health(self) -> dict[str, Any]: ...


def serve(
    url: Annotated[str, typer.Argument(metavar="URL", help="The store: any URL that open_store takes.")],
    listen: Annotated[list[str], typer.Option(metavar="ADDRESS", help="unix:PATH or tcp://HOST:PORT; several, too.")],
    *,
    token_file: Annotated[Path | None, typer.Option(help="What clients must say stands in this file.")] = None,
    read_token_file: Annotated[Path | None, typer.Option(help="What clients say that may only read.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The certificate of the TCP ports.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, where that stands in a file of its own.")] = None,
    socket_mode: Annotated[str, typer.Option(help="Who may connect to a Unix socket, in octal.")] = "0600",
    sql: Annotated[bool, typer.Option("--sql", help="Clients that may write may send SQL, too.")] = False,
    max_connections: Annotated[int, typer.Option(help="How many clients there may be.")] = _LIMITS.max_connections,
    max_waits: Annotated[int, typer.Option(help="How many waits each may have.")] = _LIMITS.max_waits,
    frame_bytes: Annotated[int, typer.Option(help="How large a request may be.")] = _LIMITS.frame_bytes,
    queue_bytes: Annotated[int, typer.Option(help="What each may have unread.")] = _LIMITS.queue_bytes,
    hello_seconds: Annotated[float, typer.Option(help="How long a hello may take.")] = _LIMITS.hello_seconds,
    frame_seconds: Annotated[float, typer.Option(help="How long a request may take to come.")] = _LIMITS.frame_seconds,
    stalled_seconds: Annotated[float, typer.Option(help="How long none may be read.")] = _LIMITS.stalled_seconds,
    drain_seconds: Annotated[float, typer.Option(help="How long it waits at its end.")] = _LIMITS.drain_seconds,
    ready_fd: Annotated[int | None, typer.Option(help="A descriptor to write to once it is ready.")] = None,
    metrics: Annotated[str | None, typer.Option(metavar="HOST:PORT", help="Where to answer with metrics.")] = None,
    verbose: Annotated[bool, typer.Option(help="Log who comes and goes.")] = False,
) -> None:
    """Serve a store to other processes, until SIGTERM or Ctrl-C: what was asked by then is answered."""
    limits = {name: value for name, value in locals().items() if name in _LIMIT_NAMES}
    with exit_codes(as_json=False):
        logging.basicConfig(
            stream=sys.stderr,
            level=logging.DEBUG if verbose else logging.INFO,
            format="%(asctime)s %(levelname)s %(message)s",
        )
        ended_by = serving.serve_at(
            url,
            listen,
            limits=ServingLimits(**limits),
            token_file=token_file,
            read_token_file=read_token_file,
            tls_cert=tls_cert,
            tls_key=tls_key,
            socket_mode=socket_mode,
            takes_sql=sql,
            ready_fd=ready_fd,
            metrics=metrics,
        )
        if ended_by == signal.SIGINT:
            raise KeyboardInterrupt


def health(
    url: Annotated[str, typer.Argument(metavar="URL", help="The store: unix:PATH, tcp://HOST:PORT or nats://….")],
    as_json: AsJson = False,
) -> None:
    """Ask servers how they are, and on NATS what an acknowledgement means there. Exit code 3: they do not answer."""
    with exit_codes(as_json):
        if url.partition(":")[0] not in ("unix", "tcp", "nats"):
            raise InvalidRequest(
                f"{url!r} has no server to ask: give unix:PATH, tcp://HOST:PORT or nats://HOST:PORT/NAME"
            )
        with open_store(url) as store:
            found = cast(_Healthy, store.interpreter).health()
        print_answer(found, as_json, lines_of_numbers)
