"""The table of the commands, and their entry point."""

import signal
from collections.abc import Callable
from typing import Annotated, Any

import typer

from interpreters.cli import (
    blobs,
    changing,
    doctor,
    explaining,
    flows,
    following,
    keeping,
    looking,
    moving,
    quickstart,
    servers,
    shipping,
    tailing,
)
from interpreters.cli.exits import EXIT_CODES, INTERRUPTED, end_interrupted
from persist_effects import __version__

# In the order in which the help tells them.
COMMANDS: dict[str, Callable[..., Any]] = {
    "quickstart": quickstart.quickstart,
    "streams": looking.streams,
    "read": looking.read,
    "tail": tailing.tail,
    "keys": looking.keys,
    "get": looking.get,
    "put": changing.put,
    "delete": changing.delete,
    "stats": keeping.stats,
    "doctor": doctor.doctor,
    "verify": keeping.verify,
    "backup": keeping.backup,
    "ship": shipping.ship,
    "restore": shipping.restore,
    "salvage": keeping.salvage,
    "export": moving.export,
    "import": moving.import_,
    "migrate": moving.migrate,
    "compact": keeping.compact,
    "serve": servers.serve,
    "health": servers.health,
    "followers": following.list_followers,
    "explain": explaining.explain,
}
BLOB_COMMANDS: dict[str, Callable[..., Any]] = {
    "list": blobs.list_blobs,
    "check": blobs.check_blobs,
    "copy": blobs.copy_blobs,
    "sweep": blobs.sweep_blobs,
}
FOLLOWER_COMMANDS: dict[str, Callable[..., Any]] = {
    "show": following.show,
    "lag": following.lag,
    "set-aside": following.list_set_aside,
    "retry": following.retry,
    "rebuild": following.rebuild,
    "cancel": following.cancel,
    "reset": following.reset,
    "forget": following.forget,
}
FLOW_COMMANDS: dict[str, Callable[..., Any]] = {
    "list": flows.list_flows,
    "show": flows.show,
    "signal": flows.signal,
    "cancel": flows.cancel,
    "pause": flows.pause,
    "resume": flows.resume,
    "retry": flows.retry,
    "resolve": flows.resolve,
    "fork": flows.fork,
    "rewind": flows.rewind,
}

app = typer.Typer(
    name="persist-effects",
    help=f"Look at a store, and keep it well. A store has a URL, as file:PATH or sqlite:PATH.\n\n{EXIT_CODES}",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"persist-effects {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """The options that stand before a command. What they ask for is done where they are read."""


blobs_app = typer.Typer(help="Look at blobs, and keep them well.", epilog=EXIT_CODES, no_args_is_help=True)
follower_app = typer.Typer(
    help="Look at one follower, and what to do about it.", epilog=EXIT_CODES, no_args_is_help=True
)
flows_app = typer.Typer(help="Look at durable flows, and tell them things.", epilog=EXIT_CODES, no_args_is_help=True)
app.add_typer(blobs_app, name="blobs")
app.add_typer(follower_app, name="follower")
app.add_typer(flows_app, name="flows")
GROUPS = (
    (COMMANDS, app),
    (BLOB_COMMANDS, blobs_app),
    (FOLLOWER_COMMANDS, follower_app),
    (FLOW_COMMANDS, flows_app),
)
for commands, group in GROUPS:
    for name, command in commands.items():
        group.command(name, epilog=EXIT_CODES)(command)


def main() -> None:
    """The entry point. Wherever Ctrl-C comes, it ends in one line at the most, and without a traceback.

    Until a command begins nothing is open and nothing was done, so there it ends the process as it would without
    Python: what reads the arguments would lose an exception in places, and go on.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        try:
            app()
        finally:
            # All is done. What comes now ends the process, as it would without Python, and prints nothing; what comes
            # before this has taken effect is told below.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        end_interrupted()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            end_interrupted()
        raise
