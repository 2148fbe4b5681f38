"""Commands that look after a store: verify, count, back up, salvage, compact. `verify` and copies are for files."""

from pathlib import Path

from interpreters.cli.counting import count_store
from interpreters.cli.exits import exit_codes, exit_if_damaged
from interpreters.cli.inputs import AnyUrl, AsJson, Into, Url, path_of, reading_any, writing_any
from interpreters.cli.output import lines_of_numbers, print_answer, progress
from interpreters.stores.compacting import Compacted, compact_store
from interpreters.stores.file.upkeep import operations
from interpreters.stores.file.upkeep.backup import BackedUp
from interpreters.stores.file.upkeep.salvage import Salvaged
from interpreters.stores.file.upkeep.verify import Verified

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


def verify(url: Url, as_json: AsJson = False) -> None:
    """Read every frame, and tell each damage by its file and offset. Changes nothing; a writer may be at work."""
    with exit_codes(as_json):
        with progress("verifying", as_json) as told:
            report = operations.verify(path_of(url), told)
        print_answer(report, as_json, _lines_of_report)
        exit_if_damaged(not report.is_sound)


def stats(url: AnyUrl, as_json: AsJson = False) -> None:
    """Count streams, events and keys. Of a file store also bytes, and what compaction would give back: it reads all."""
    with exit_codes(as_json):
        if not url.startswith("file:"):
            with reading_any(url) as store, progress("counting", as_json) as told:
                counts = count_store(store, told)
            print_answer(counts, as_json, lines_of_numbers)
            return
        with progress("counting", as_json) as told:
            report = operations.verify(path_of(url), told)
        numbers = {name: getattr(report, name) for name in _NUMBERS}
        numbers["garbage_share"] = round(report.garbage_bytes / report.bytes, 4) if report.bytes else 0.0
        print_answer(numbers, as_json, lines_of_numbers)
        exit_if_damaged(not report.is_sound)


def backup(url: Url, into: Into, as_json: AsJson = False) -> None:
    """Copy a store, as it is at one moment, into a new directory. A writer may be at work."""
    with exit_codes(as_json):
        with progress("copying", as_json) as told:
            copied = operations.backup(path_of(url), into, told)
        print_answer(copied, as_json, lambda _: [_line_of_backup(copied, into)])


def salvage(url: Url, into: Into, as_json: AsJson = False) -> None:
    """Copy what is sound of a damaged store into a new one, and tell what is lost. Exit code 1: it is damaged."""
    with exit_codes(as_json):
        with progress("salvaging", as_json) as told:
            salvaged = operations.salvage(path_of(url), into, told)
        print_answer(salvaged, as_json, _lines_of_salvaged)
        # A part of a file may be gone without anything left that says what was in it.
        exit_if_damaged(bool(salvaged.damages) or not salvaged.is_complete)


def compact(url: AnyUrl, as_json: AsJson = False) -> None:
    """Give back the space of what was truncated, overwritten and deleted, so that nothing of it is left.

    Of a file store no other writer may be at work, unless it serves: then it does so itself.
    """
    with exit_codes(as_json), writing_any(url) as store:
        with progress("compacting", as_json) as told:
            compacted = compact_store(store.interpreter, told)
        print_answer(compacted._asdict(), as_json, lambda _: _lines_of_compacted(compacted))


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


def _lines_of_compacted(compacted: Compacted) -> list[str]:
    numbers = {"bytes_before": compacted.bytes_before, "bytes_after": compacted.bytes_after}
    return [*lines_of_numbers(numbers), *(f"elsewhere: {place}" for place in compacted.elsewhere)]


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
