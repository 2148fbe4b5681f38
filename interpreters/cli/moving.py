"""Commands that carry a store elsewhere: export, import, migrate."""

from typing import Annotated

import typer

from interpreters import jsonl, migrating
from interpreters.cli.exits import exit_codes
from interpreters.cli.inputs import AsJson, Url, input_from, output_to, path_of, reading
from interpreters.cli.output import print_answer, progress
from interpreters.opening import open_store


def export(
    url: Url,
    out: Annotated[str, typer.Option("--out", "-o", help="A new file; - is stdout.")] = "-",
    as_json: AsJson = False,
) -> None:
    """Write all of a store as JSON Lines, which `import` reads. A writer may be at work."""
    with exit_codes(as_json), reading(url) as store, output_to(out) as file:
        with progress("exporting", as_json) as told:
            counts = jsonl.export(store, file, told)
        if out != "-":
            print_answer(counts, as_json, _lines_of_counts)


def import_(
    url: Url,
    source: Annotated[str, typer.Option("--from", "-i", help="A file that `export` wrote; - is stdin.")] = "-",
    skip: Annotated[list[str] | None, typer.Option(help="A key to leave out. May be given several times.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write what `export` wrote into a new or empty store. After an error, remove that store and begin again."""
    with exit_codes(as_json), input_from(source) as lines, open_store("file:", path=path_of(url)) as store:
        with progress("importing", as_json) as told:
            counts = jsonl.import_(store, lines, told, skip=skip or ())
        print_answer(counts, as_json, _lines_of_counts)


def migrate(
    source: Annotated[str, typer.Argument(metavar="FROM", help="The store: any URL that open_store takes.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="An empty one, of any kind.")],
    as_json: AsJson = False,
) -> None:
    """Copy a store that nobody writes into another one, and compare both. Interrupted, and run again, it goes on."""
    with exit_codes(as_json), open_store(source) as old, open_store(target) as new:
        with progress("migrating", as_json) as told:
            counts = migrating.migrate(old, new, told)
        print_answer(counts, as_json, _lines_of_counts)


def _lines_of_counts(counts: jsonl.Counts) -> list[str]:
    return [f"{counts.events} events, {counts.streams} streams, {counts.keys} keys"]
