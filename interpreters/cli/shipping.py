"""Commands for a backup that never stops: ship a store as it is written, and restore any position of it."""

import time
from typing import Annotated

import msgspec
import typer

from interpreters.cli.exits import exit_codes, exit_if_damaged, noting_interrupt
from interpreters.cli.inputs import AsJson, Into, Url, path_of
from interpreters.cli.output import lines_of_numbers, print_answer, progress
from interpreters.stores.file.upkeep.shipping import running
from interpreters.stores.file.upkeep.shipping.lag import ShippingLag
from interpreters.stores.file.upkeep.shipping.restoring import Restored
from interpreters.stores.file.upkeep.shipping.running import FailedLook
from interpreters.stores.file.upkeep.shipping.shipper import Shipped

_LOOK_SECONDS = 0.2
"""How long a wait goes on before it looks whether Ctrl-C was pressed."""

TargetArgument = Annotated[str, typer.Argument(metavar="TARGET", help="Where to: a directory, PATH or dir:PATH.")]


def ship(
    url: Url,
    target: TargetArgument,
    *,
    once: Annotated[bool, typer.Option("--once", help="End when all that is there now is shipped.")] = False,
    every: Annotated[float, typer.Option(metavar="SECONDS", help="How long to wait between looks.")] = 1.0,
    keep_days: Annotated[
        float | None, typer.Option(metavar="DAYS", help="How long to keep what was before a compaction; else for ever.")
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Only say how far the target is behind.")] = False,
    as_json: AsJson = False,
) -> None:
    """Copy what is written to a store to a target, as it comes, so that any position can be restored from there."""
    with exit_codes(as_json):
        if status:
            print_answer(running.lag(path_of(url), target), as_json, lambda lag: lines_of_numbers(_numbers(lag)))
            return
        with noting_interrupt() as is_interrupted:

            def wait(seconds: float) -> bool:
                end = time.monotonic() + seconds
                while not is_interrupted() and (left := end - time.monotonic()) > 0:
                    time.sleep(min(left, _LOOK_SECONDS))
                return is_interrupted()

            def note(done: int, total: int) -> None:
                if is_interrupted():
                    raise KeyboardInterrupt
                if bar is not None:
                    bar(done, total)

            with progress("shipping", as_json) as bar:
                shipped = running.ship(
                    path_of(url),
                    target,
                    every_seconds=every,
                    once=once,
                    keep_days=keep_days,
                    told=lambda found: _tell(found, as_json),
                    progress=note,
                    wait=wait,
                )
            if is_interrupted():
                raise KeyboardInterrupt
            if not shipped.objects:
                _tell(shipped, as_json)
        exit_if_damaged(bool(shipped.damages))


def restore(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Where `ship` has put it: PATH or dir:PATH.")],
    into: Into,
    *,
    at: Annotated[int | None, typer.Option(min=0, metavar="POSITION", help="As it was at this position.")] = None,
    at_revision: Annotated[int | None, typer.Option(min=0, metavar="REVISION", help="As it was at this one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a new store of what was shipped. Exit code 1: an object is damaged; only blobs may be left out."""
    with exit_codes(as_json):
        with progress("restoring", as_json) as told:
            restored = running.restore(target, into, position=at, revision=at_revision, progress=told)
        print_answer(restored, as_json, _lines_of_restored)
        exit_if_damaged(bool(restored.damages))


def _tell(found: Shipped | FailedLook, as_json: bool) -> None:
    """A line for each look: of what was put on stdout, of trouble on stderr."""
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())
    elif isinstance(found, FailedLook):
        typer.echo(_line_of_trouble(found), err=True)
    else:
        for damage in found.damages:
            typer.echo(f"damage: {damage}", err=True)
        typer.echo(_line_of_shipped(found))


def _line_of_shipped(found: Shipped) -> str:
    blobs = f", {found.blobs} blobs" if found.blobs else ""
    return (
        f"shipped: {found.objects} objects, {found.bytes} bytes{blobs}: up to position {found.position}, revision "
        f"{found.revision}"
    )


def _line_of_trouble(found: FailedLook) -> str:
    lag = found.lag
    behind = ""
    if lag is not None:
        behind = f"; {lag.bytes} bytes and {lag.positions} positions behind"
        behind += "" if lag.seconds is None else f", {lag.seconds:.1f} seconds"
    again = f"tried {found.tries} times, again in {found.wait_seconds:g} seconds"
    return f"persist-effects: {found.reason}{behind}: {again}"


def _numbers(lag: ShippingLag) -> dict[str, object]:
    return {f"{name}{'_behind' if name in _BEHIND else ''}": value for name, value in msgspec.to_builtins(lag).items()}


_BEHIND = ("bytes", "positions", "seconds")


def _lines_of_restored(restored: Restored) -> list[str]:
    lines = [f"damage: {damage}: this blob was left out" for damage in restored.damages]
    blobs = f", {restored.blobs} blobs of {restored.blob_bytes} bytes" if restored.blobs else ""
    up_to = f"up to position {restored.position}, revision {restored.revision}"
    return [*lines, f"restored: {restored.segments} segments, {restored.bytes} bytes{blobs}: {up_to}"]
