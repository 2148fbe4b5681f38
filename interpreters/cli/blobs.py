"""Commands for blobs: list, check, copy, sweep."""

import contextlib
from datetime import timedelta
from typing import Annotated

import msgspec
import typer

from interpreters.blobs.homes import KeptBlob
from interpreters.blobs.sweeping import Swept, sweep
from interpreters.blobs.upkeep import CheckedBlobs, CopiedBlobs, check_all, copy_all
from interpreters.cli.exits import exit_codes, exit_if_damaged
from interpreters.cli.inputs import AsJson, Home, opened_blobs, reading_any
from interpreters.cli.output import EPOCH, print_answer, progress


def list_blobs(home: Home, as_json: AsJson = False) -> None:
    """Print the identifier, the size and the time of the last put of each blob. With --json, a line of it for each."""
    with exit_codes(as_json), opened_blobs(home, read_only=True) as blobs:
        for kept in blobs.kept():
            typer.echo(msgspec.json.encode(kept._asdict()).decode() if as_json else _line_of_blob(kept))


def check_blobs(home: Home, as_json: AsJson = False) -> None:
    """Read every blob, and compare it with its identifier. Exit code 1: one is damaged."""
    with exit_codes(as_json), opened_blobs(home, read_only=True) as blobs:
        with progress("checking", as_json) as told:
            checked = check_all(blobs, told)
        print_answer(checked, as_json, _lines_of_checked)
        exit_if_damaged(bool(checked.damages))


def copy_blobs(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The blobs to copy, given as to `list`.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="Where to copy them, given as to `list`.")],
    as_json: AsJson = False,
) -> None:
    """Copy all blobs from one home into another. Interrupted, and run again, it goes on. Exit code 1: some are left."""
    with exit_codes(as_json), opened_blobs(source, read_only=True) as old, opened_blobs(target) as new:
        with progress("copying", as_json) as told:
            copied = copy_all(old, new, told)
        print_answer(copied, as_json, _lines_of_copied)
        exit_if_damaged(bool(copied.left))


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
    with exit_codes(as_json), contextlib.ExitStack() as opened:
        blobs = opened.enter_context(opened_blobs(home or stores[0], read_only=dry_run))
        reading = [opened.enter_context(reading_any(url)) for url in stores]
        with progress("reading", as_json) as told:
            swept = sweep(blobs, *reading, grace=timedelta(hours=grace_hours), dry_run=dry_run, progress=told)
        print_answer(swept, as_json, _lines_of_swept)


def _line_of_blob(kept: KeptBlob) -> str:
    """One line for people.

    >>> _line_of_blob(KeptBlob("bafkrei…", 5, 0)), _line_of_blob(KeptBlob("bafkrei…", 5, None))
    ('bafkrei… 5 1970-01-01T00:00:00+00:00', 'bafkrei… 5')
    """
    put_at = "" if kept.put_at is None else f" {(EPOCH + timedelta(microseconds=kept.put_at)).isoformat()}"
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
