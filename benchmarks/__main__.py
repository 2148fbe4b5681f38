"""`python -m benchmarks`: measure the rows and print their table. Exits with 1 if a row falls short."""

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import (
    rows_blobs,
    rows_crash,
    rows_encryption,
    rows_file_append,
    rows_file_compact,
    rows_file_open,
    rows_file_read,
    rows_flows,
    rows_growth,
    rows_machine,
    rows_memory,
    rows_nats,
    rows_postgres,
    rows_read_models,
    rows_schedule,
    rows_served,
    rows_shipping,
    rows_sqlite,
    rows_trace,
    rows_waiting,
    rows_wrappers,
)
from benchmarks.table import Result, Row, as_record, as_table, measure, selected

ROWS: tuple[Row, ...] = (
    *rows_machine.ROWS,
    *rows_memory.ROWS,
    *rows_trace.ROWS,
    *rows_file_append.ROWS,
    *rows_file_read.ROWS,
    *rows_file_open.ROWS,
    *rows_file_compact.ROWS,
    *rows_shipping.ROWS,
    *rows_growth.ROWS,
    *rows_sqlite.ROWS,
    *rows_postgres.ROWS,
    *rows_read_models.ROWS,
    *rows_nats.ROWS,
    *rows_blobs.ROWS,
    *rows_crash.ROWS,
    *rows_encryption.ROWS,
    *rows_wrappers.ROWS,
    *rows_flows.ROWS,
    *rows_schedule.ROWS,
    *rows_waiting.ROWS,
    *rows_served.ROWS,
)

FILE_WIDTH = 160
"""How many columns the table takes where it goes to no terminal, which would say: enough not to break a row."""


def main(arguments: Sequence[str] | None = None, rows: Sequence[Row] = ROWS) -> int:
    """Measure the rows that the arguments select, print what came of them, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speeds, as ratios of the same run.")
    parser.add_argument("--only", default="", metavar="NAME", help="rows whose names hold this text")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="rounds of each row, instead of each row's")
    parser.add_argument("--operations", type=_positive, metavar="N", help="operations a round, instead of each row's")
    parser.add_argument("--json", action="store_true", help="print records for machines, not a table")
    options = parser.parse_args(arguments)
    wanted = selected(rows, options.only)
    if not wanted:
        known = "\n".join(f"  {row.name}" for row in rows)
        parser.error(f"no row's name holds {options.only!r}; the rows are:\n{known}")
    if options.operations:
        wanted = [row._replace(operations=options.operations) for row in wanted]
    if options.rounds:
        wanted = [row._replace(rounds=options.rounds) for row in wanted]
    results = _measure_all(wanted)
    if options.json:
        print(json.dumps([as_record(result) for result in results], indent=2))
    else:
        console = Console()
        if not console.is_terminal:
            console.width = FILE_WIDTH
        console.print(as_table(results))
    return 0 if all(result.is_reached for result in results) else 1


def _measure_all(rows: Sequence[Row]) -> list[Result]:
    """Measure row after row. How far it is is told between the rounds: nothing is drawn while one runs.

    A terminal is shown a bar; what else stderr goes to gets a line for each row that is done.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    results = []
    with Progress(
        *columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("", total=sum(row.rounds for row in rows))
        for row in rows:
            bar.update(task, description=row.name, refresh=True)
            result = measure(row, lambda: bar.update(task, advance=1, refresh=True))
            results.append(result)
            if not console.is_terminal:
                print(f"{row.name}: {result.ratio:.2f}", file=sys.stderr, flush=True)
    return results


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
