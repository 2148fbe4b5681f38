"""`persist-effects`: what operators do with a store, from the command line. Needs the extra ``cli``.

Each command takes the URL of a file store, ``file:PATH``, but for `serve` and `migrate`, which take any store's, and
`health`, which takes a served one's. Answers go to stdout, progress and errors to stderr. What a
script can trust are the exit codes, the same for all commands; see `EXIT_CODES`.
"""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, BinaryIO, NoReturn, Protocol, cast

import msgspec

from interpreters import jsonl, migrating, serving
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import BlobHome, KeptBlob
from interpreters.blobs.sweeping import Swept, sweep
from interpreters.blobs.upkeep import CheckedBlobs, CopiedBlobs, check_all, copy_all
from interpreters.blobs.urls import open_blobs
from interpreters.disk.files import new_file
from interpreters.opening import open_store
from interpreters.stores.file import BLOBS, NUMBERS
from interpreters.stores.file.upkeep import operations
from interpreters.stores.file.upkeep.backup import BackedUp
from interpreters.stores.file.upkeep.salvage import Salvaged
from interpreters.stores.file.upkeep.verify import Verified
from interpreters.stores.served.limits import ServingLimits
from interpreters.stores.urls import options_of_url
from persist_effects import log
from persist_effects.errors import CallerError, CorruptStore, InvalidRequest, PersistError
from persist_effects.event import Event
from persist_effects.json_values import to_json
from persist_effects.machine import perform
from persist_effects.requests import Wait

try:
    import typer
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
except ModuleNotFoundError as missing:
    sys.stderr.write(f"persist-effects needs the package {missing.name}: install this one with its extra `cli`\n")
    raise SystemExit(2) from None

GOOD, DAMAGED, WRONG_USE, UNAVAILABLE, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 3, 130, 141

EXIT_CODES = """
Exit codes: 0 good; 1 damage was found; 2 wrong use or bad input; 3 the store or its disk cannot be used now, the store
is locked, or a newer release wrote it; 130 interrupted by Ctrl-C; 141 the reader of the output went away.
"""

_WAIT_SECONDS = 0.2
"""How long `tail` waits before it looks whether Ctrl-C was pressed."""

_LIMITS = ServingLimits()
_LIMIT_NAMES = frozenset(ServingLimits.__struct_fields__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

app = typer.Typer(
    name="persist-effects",
    help=f"Look at a store, and keep it well. A store's URL is file:PATH.\n\n{EXIT_CODES}",
    epilog=EXIT_CODES,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
blobs_app = typer.Typer(help="Look at blobs, and keep them well.", epilog=EXIT_CODES, no_args_is_help=True)
app.add_typer(blobs_app, name="blobs")

Url = Annotated[str, typer.Argument(metavar="URL", help="The store: file:PATH.")]
Into = Annotated[Path, typer.Argument(metavar="INTO", help="A directory that is not there, or empty.")]
Home = Annotated[
    str,
    typer.Argument(
        metavar="HOME",
        help="The blobs: dir:PATH, ipfs:http://HOST:PORT, nats://HOST:PORT/BUCKET, or those beside a store, file:PATH "
        "or sqlite:PATH.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for machines, and no progress.")]


class _Healthy(Protocol):
    def health(self) -> dict[str, Any]: ...


class _Compacting(Protocol):
    """A store that can give space back."""

    def compact(self) -> Any: ...


# Commands


@app.command(epilog=EXIT_CODES)
def verify(url: Url, as_json: AsJson = False) -> None:
    """Read every frame, and tell each damage by its file and offset. Changes nothing; a writer may be at work."""
    with _exit_codes(as_json):
        with _progress("verifying", as_json) as progress:
            report = operations.verify(_path_of(url), progress)
        _print(report, as_json, _lines_of_report)
        _exit_if_damaged(not report.is_sound)


@app.command(epilog=EXIT_CODES)
def stats(url: Url, as_json: AsJson = False) -> None:
    """Count streams, events, keys, segments and bytes, and what compaction would give back. Reads all of the store."""
    with _exit_codes(as_json):
        with _progress("counting", as_json) as progress:
            report = operations.verify(_path_of(url), progress)
        numbers = {name: getattr(report, name) for name in _NUMBERS}
        numbers["garbage_share"] = round(report.garbage_bytes / report.bytes, 4) if report.bytes else 0.0
        _print(numbers, as_json, _lines_of_numbers)
        _exit_if_damaged(not report.is_sound)


@app.command(epilog=EXIT_CODES)
def backup(url: Url, into: Into, as_json: AsJson = False) -> None:
    """Copy a store, as it is at one moment, into a new directory. A writer may be at work."""
    with _exit_codes(as_json):
        with _progress("copying", as_json) as progress:
            copied = operations.backup(_path_of(url), into, progress)
        _print(copied, as_json, lambda _: [_line_of_backup(copied, into)])


@app.command(epilog=EXIT_CODES)
def salvage(url: Url, into: Into, as_json: AsJson = False) -> None:
    """Copy what is sound of a damaged store into a new one, and tell what is lost. Exit code 1: it is damaged."""
    with _exit_codes(as_json):
        with _progress("salvaging", as_json) as progress:
            salvaged = operations.salvage(_path_of(url), into, progress)
        _print(salvaged, as_json, _lines_of_salvaged)
        # A part of a file may be gone without anything left that says what was in it.
        _exit_if_damaged(bool(salvaged.damages) or not salvaged.is_complete)


@app.command(epilog=EXIT_CODES)
def export(
    url: Url,
    out: Annotated[str, typer.Option("--out", "-o", help="A new file; - is stdout.")] = "-",
    as_json: AsJson = False,
) -> None:
    """Write all of a store as JSON Lines, which `import` reads. A writer may be at work."""
    with _exit_codes(as_json), _reading(url) as store, _output(out) as file:
        with _progress("exporting", as_json) as progress:
            counts = jsonl.export(store, file, progress)
        if out != "-":
            _print(counts, as_json, _lines_of_counts)


@app.command("import", epilog=EXIT_CODES)
def import_(
    url: Url,
    source: Annotated[str, typer.Option("--from", "-i", help="A file that `export` wrote; - is stdin.")] = "-",
    skip: Annotated[list[str] | None, typer.Option(help="A key to leave out. May be given several times.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write what `export` wrote into a new or empty store. After an error, remove that store and begin again."""
    with _exit_codes(as_json), _input(source) as lines, open_store("file:", path=_path_of(url)) as store:
        with _progress("importing", as_json) as progress:
            counts = jsonl.import_(store, lines, progress, skip=skip or ())
        _print(counts, as_json, _lines_of_counts)


@app.command(epilog=EXIT_CODES)
def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store: any URL that open_store takes.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="An empty one, of any kind.")],
    as_json: AsJson = False,
) -> None:
    """Copy a store that nobody writes into another one, and compare both. Interrupted, and run again, it goes on."""
    with _exit_codes(as_json), open_store(source) as old, open_store(target) as new:
        with _progress("migrating", as_json) as progress:
            counts = migrating.migrate(old, new, progress)
        _print(counts, as_json, _lines_of_counts)


@app.command(epilog=EXIT_CODES)
def tail(
    url: Url,
    *,
    after: Annotated[int, typer.Option(min=0, help="Begin after this position.")] = 0,
    prefix: Annotated[str, typer.Option(help="Only streams whose names begin with this.")] = "",
    types: Annotated[str | None, typer.Option(help="Only these types of events, with commas between them.")] = None,
    follow: Annotated[bool, typer.Option(help="Wait for more at the end.")] = True,
    as_json: AsJson = False,
) -> None:
    """Print events in the order of their positions, and go on as they come. With --json, as `export` writes them."""
    with _exit_codes(as_json), _noting_interrupt() as is_interrupted, _reading(url) as store:
        position = after
        wanted = types.split(",") if types else None
        while not is_interrupted():
            page = store.run(log.page_all(position, prefix, wanted))
            for event in page.events:
                typer.echo(jsonl.event_line(event).decode().rstrip("\n") if as_json else _line_of_event(event))
            position = page.next
            if position < page.head:
                continue
            sys.stdout.flush()
            if not follow:
                return
            store.run(perform(Wait(position, prefix, _WAIT_SECONDS)))
        raise KeyboardInterrupt


@app.command(epilog=EXIT_CODES)
def compact(url: Url, as_json: AsJson = False) -> None:
    """Give back the space of what was truncated, overwritten and deleted. No other writer may be at work."""
    with _exit_codes(as_json):
        path = _path_of(url)
        _check_is_store(path)
        with open_store("file:", path=path) as store:
            compacted = cast(_Compacting, store.interpreter).compact()
        numbers = {"bytes_before": compacted.bytes_before, "bytes_after": compacted.bytes_after}
        _print(numbers, as_json, _lines_of_numbers)


@blobs_app.command("list", epilog=EXIT_CODES)
def list_blobs(home: Home, as_json: AsJson = False) -> None:
    """Print the identifier, the size and the time of the last put of each blob. With --json, a line of it for each."""
    with _exit_codes(as_json), _home(home, read_only=True) as blobs:
        for kept in blobs.kept():
            typer.echo(msgspec.json.encode(kept._asdict()).decode() if as_json else _line_of_blob(kept))


@blobs_app.command("check", epilog=EXIT_CODES)
def check_blobs(home: Home, as_json: AsJson = False) -> None:
    """Read every blob, and compare it with its identifier. Exit code 1: one is damaged."""
    with _exit_codes(as_json), _home(home, read_only=True) as blobs:
        with _progress("checking", as_json) as progress:
            checked = check_all(blobs, progress)
        _print(checked, as_json, _lines_of_checked)
        _exit_if_damaged(bool(checked.damages))


@blobs_app.command("copy", epilog=EXIT_CODES)
def copy_blobs(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The blobs to copy, given as to `list`.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Where to copy them, given as to `list`.")],
    as_json: AsJson = False,
) -> None:
    """Copy all blobs from one home into another. Interrupted, and run again, it goes on. Exit code 1: some are left."""
    with _exit_codes(as_json), _home(source, read_only=True) as old, _home(target) as new:
        with _progress("copying", as_json) as progress:
            copied = copy_all(old, new, progress)
        _print(copied, as_json, _lines_of_copied)
        _exit_if_damaged(bool(copied.left))


@blobs_app.command("sweep", epilog=EXIT_CODES)
def sweep_blobs(
    stores: Annotated[
        list[str], typer.Argument(metavar="URL...", help="All stores that refer to the blobs: URLs as open_store's.")
    ],
    *,
    home: Annotated[str | None, typer.Option("--blobs", help="The blobs; else those beside the first store.")] = None,
    grace_hours: Annotated[float, typer.Option(min=0, help="How long a blob is kept after it was put.")] = 24.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be given up.")] = False,
    as_json: AsJson = False,
) -> None:
    """Give up the blobs that no log and no key reaches and nobody has put lately. Programs may go on meanwhile."""
    with _exit_codes(as_json), contextlib.ExitStack() as opened:
        blobs = opened.enter_context(_home(home or stores[0], read_only=dry_run))
        reading = [opened.enter_context(_reading_any(url)) for url in stores]
        with _progress("reading", as_json) as progress:
            swept = sweep(blobs, *reading, grace=timedelta(hours=grace_hours), dry_run=dry_run, progress=progress)
        _print(swept, as_json, _lines_of_swept)


@app.command(epilog=EXIT_CODES)
def serve(
    url: Annotated[str, typer.Argument(metavar="URL", help="The store: any URL that open_store takes.")],
    listen: Annotated[list[str], typer.Option(metavar="ADDRESS", help="unix:PATH or tcp://HOST:PORT; several, too.")],
    *,
    token_file: Annotated[Path | None, typer.Option(help="What clients must say stands in this file.")] = None,
    read_token_file: Annotated[Path | None, typer.Option(help="What clients say that may only read.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="The certificate of the TCP ports.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key, where that stands in a file of its own.")] = None,
    socket_mode: Annotated[str, typer.Option(help="Who may connect to a Unix socket, in octal.")] = "0600",
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
    with _exit_codes(as_json=False):
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
            ready_fd=ready_fd,
            metrics=metrics,
        )
        if ended_by == signal.SIGINT:
            raise KeyboardInterrupt


@app.command(epilog=EXIT_CODES)
def health(
    url: Annotated[str, typer.Argument(metavar="URL", help="The store: unix:PATH, tcp://HOST:PORT or nats://….")],
    as_json: AsJson = False,
) -> None:
    """Ask servers how they are, and on NATS what an acknowledgement means there. Exit code 3: they do not answer."""
    with _exit_codes(as_json):
        if url.partition(":")[0] not in ("unix", "tcp", "nats"):
            raise InvalidRequest(
                f"{url!r} has no server to ask: give unix:PATH, tcp://HOST:PORT or nats://HOST:PORT/NAME"
            )
        with open_store(url) as store:
            found = cast(_Healthy, store.interpreter).health()
        _print(found, as_json, _lines_of_numbers)


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
        _end_interrupted()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            _end_interrupted()
        raise


def _end_interrupted() -> NoReturn:
    # Pressed again, it has nothing more to end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stderr.write("persist-effects: interrupted\n")
    sys.exit(INTERRUPTED)


# Stores and files


def _path_of(url: str) -> str:
    """The directory that a URL names. Raises `InvalidRequest` for what is not a file store's URL.

    >>> _path_of("file:var/orders")
    'var/orders'
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "memory" and colon:
        raise InvalidRequest("a memory store is gone with its process, so there is none to look at: give file:PATH")
    if scheme != "file" or not colon:
        raise InvalidRequest(f"{url!r} is not a file store, and these tools are for those: give file:PATH")
    given = options_of_url("file", rest, NUMBERS)
    path: str = given.pop("path", "")
    if not path or given:
        raise InvalidRequest(f"{url!r}: give file:PATH, the directory of a store, without options")
    return path


def _check_is_store(path: str) -> None:
    if not (Path(path) / "CURRENT").exists():
        raise InvalidRequest(f"there is no store in {path}: give the directory that holds CURRENT and log")


def _reading(url: str) -> Any:
    return open_store("file:", path=_path_of(url), mode="r")


def _reading_any(url: str) -> Any:
    """A store of any kind, opened to be read, so that a program that writes to it may go on."""
    scheme, _, rest = url.partition(":")
    return open_store(url, mode="r") if scheme in {"file", "sqlite"} and "?" not in rest else open_store(url)


@contextlib.contextmanager
def _home(url: str, *, read_only: bool = False) -> Iterator[BlobHome]:
    home = _opened_home(url, read_only)
    try:
        yield home
    finally:
        home.close()


def _opened_home(url: str, read_only: bool) -> BlobHome:
    """The home of blobs that a URL names, or that of the store that it names."""
    scheme, colon, rest = url.partition(":")
    beside = {"file": f"/{BLOBS}", "sqlite": "-blobs"}.get(scheme)
    if beside is None or not colon:
        return open_blobs(url, read_only=read_only)
    path = options_of_url(scheme, rest, NUMBERS).get("path", "")
    if not path or not Path(path).exists():
        raise InvalidRequest(f"{url!r} is not a store that is there, so there are no blobs beside it")
    # Where none was ever put there is no directory, and looking at it makes none.
    place = f"{path}{beside}"
    return DirectoryBlobs(place, read_only=read_only or not Path(place).is_dir())


@contextlib.contextmanager
def _output(out: str) -> Iterator[BinaryIO]:
    if out == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if os.path.lexists(out):
        raise InvalidRequest(f"{out} is there already: give a new file, or remove it")
    with new_file(out) as file:
        yield file


@contextlib.contextmanager
def _input(source: str) -> Iterator[BinaryIO]:
    if source == "-":
        yield sys.stdin.buffer
        return
    if not Path(source).exists() or Path(source).is_dir():
        raise InvalidRequest(f"{source} is not a file: give one that `export` wrote")
    with Path(source).open("rb") as file:
        yield file


# Exits


@contextlib.contextmanager
def _exit_codes(as_json: bool) -> Iterator[None]:
    """Errors become messages and exit codes."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        raise typer.Exit(BROKEN_PIPE) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except CorruptStore as error:
        _fail(error, DAMAGED, as_json)
    except CallerError as error:
        _fail(error, WRONG_USE, as_json)
    except (PersistError, OSError) as error:
        _fail(error, UNAVAILABLE, as_json)


@contextlib.contextmanager
def _noting_interrupt() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; pressed again, it interrupts at once.

    An exception would be lost where it met a ``__del__``, as where a file is closed, and `tail` would go on for ever.
    """
    pressed: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)

    def note(number: int, frame: FrameType | None) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)


def _fail(error: Exception, code: int, as_json: bool) -> NoReturn:
    if as_json:
        typer.echo(msgspec.json.encode({"error": type(error).__name__, "message": str(error)}).decode())
    typer.echo(f"persist-effects: {error}", err=True)
    raise typer.Exit(code) from error


def _exit_if_damaged(is_damaged: bool) -> None:
    sys.stdout.flush()
    if is_damaged:
        raise typer.Exit(DAMAGED)


def _forget_stdout() -> None:
    # Python flushes it once more at its end, and would complain.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# Output


@contextlib.contextmanager
def _progress(what: str, as_json: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr, if that is a terminal."""
    console = Console(stderr=True)
    if as_json or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total or None)


def _print(answer: Any, as_json: bool, lines_of: Callable[[Any], list[str]]) -> None:
    lines = [msgspec.json.encode(answer).decode()] if as_json else lines_of(answer)
    typer.echo("\n".join(lines))


_NUMBERS = (
    "streams",
    "events",
    "keys",
    "segments",
    "bytes",
    "garbage_bytes",
    "position",
    "revision",
    "blobs",
    "blob_bytes",
)


def _lines_of_report(report: Verified) -> list[str]:
    lines = [f"damage: {damage}" for damage in report.damages]
    lines += [f"repairable: {damage}: the next opening makes it again" for damage in report.repairable]
    lines += [f"note: {note}" for note in report.notes]
    what = f"{report.segments} segments, {report.frames} frames, {report.bytes} bytes{_blobs(report)}"
    if report.is_sound:
        return [*lines, f"sound: {what}"]
    return [*lines, f"damaged in {len(report.damages)} places: {what} are valid: restore a backup, or salvage"]


def _line_of_backup(copied: BackedUp, into: Path) -> str:
    return f"{copied.segments} segments, {copied.bytes} bytes{_blobs(copied)}, in {into}"


def _blobs(found: BackedUp | Verified) -> str:
    return f", {found.blobs} blobs of {found.blob_bytes} bytes" if found.blobs else ""


def _lines_of_numbers(numbers: dict[str, Any]) -> list[str]:
    return [f"{name}: {number}" for name, number in numbers.items()]


def _lines_of_salvaged(salvaged: Salvaged) -> list[str]:
    lines = [f"damage: {damage}" for damage in salvaged.damages]
    lines += [f"lost: {lost.file}: offsets {lost.start} to {lost.end}" for lost in salvaged.bytes_lost]
    lines += [
        f"lost: stream {one.stream!r}: events {one.first} to {one.last}: {one.reason}" for one in salvaged.events_lost
    ]
    lines += [f"lost: key {key!r}: its newest value" for key in salvaged.keys_lost]
    lines += [f"lost: blob {cid}" for cid in salvaged.blobs_lost]
    blobs = f", {salvaged.blobs} blobs" if salvaged.blobs else ""
    return [*lines, f"kept: {salvaged.events} events of {salvaged.streams} streams, {salvaged.keys} keys{blobs}"]


def _lines_of_counts(counts: jsonl.Counts) -> list[str]:
    return [f"{counts.events} events, {counts.streams} streams, {counts.keys} keys"]


def _line_of_blob(kept: KeptBlob) -> str:
    """One line for people.

    >>> _line_of_blob(KeptBlob("bafkrei…", 5, 0)), _line_of_blob(KeptBlob("bafkrei…", 5, None))
    ('bafkrei… 5 1970-01-01T00:00:00+00:00', 'bafkrei… 5')
    """
    put_at = "" if kept.put_at is None else f" {(_EPOCH + timedelta(microseconds=kept.put_at)).isoformat()}"
    return f"{kept.cid} {kept.size_bytes}{put_at}"


def _lines_of_checked(checked: CheckedBlobs) -> list[str]:
    lines = [f"damage: {damage.reason}" for damage in checked.damages]
    told = f"damaged: {len(checked.damages)} blobs, and" if lines else "sound:"
    return [*lines, f"{told} {checked.blobs} blobs of {checked.bytes} bytes{' are sound' if lines else ''}"]


def _lines_of_copied(copied: CopiedBlobs) -> list[str]:
    lines = [f"left: blob {left.cid}: {left.reason}" for left in copied.left]
    return [*lines, f"copied: {copied.blobs} blobs of {copied.bytes} bytes, {copied.there} were there"]


def _lines_of_swept(swept: Swept) -> list[str]:
    lines = [f"{'unreached' if swept.is_dry_run else 'dropped'}: blob {cid}" for cid in swept.dropped]
    told = "would be given up" if swept.is_dry_run else "were given up"
    others = f"{swept.reached} are reached, {swept.young} are young"
    if swept.unfinished:
        others += (
            f"; of {swept.unfinished} unfinished puts, what was left {'would go' if swept.is_dry_run else 'is gone'}"
        )
    return [*lines, f"{len(swept.dropped)} of {swept.blobs} blobs {told}, {swept.dropped_bytes} bytes; {others}"]


def _line_of_event(event: Event) -> str:
    """One line for people.

    >>> _line_of_event(Event("orders/1", 3, "placed", 0, {"total": 12}, 17))
    '17 1970-01-01T00:00:00+00:00 orders/1 3 placed {"total":12}'
    """
    try:
        time = (_EPOCH + timedelta(microseconds=event.at)).isoformat()
    except OverflowError:
        time = str(event.at)
    data = msgspec.json.encode(to_json(event.data)).decode()
    return f"{event.position} {time} {event.stream} {event.seq} {event.type} {data}"


if __name__ == "__main__":
    main()
