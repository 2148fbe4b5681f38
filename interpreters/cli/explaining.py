"""The command that tells what an error means: explain."""

import sys
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markdown import Markdown

from interpreters.cli.exits import exit_codes
from interpreters.cli.inputs import AsJson
from interpreters.cli.lines import print_json
from interpreters.error_pages import lines_of_pages, page_names, page_text, summary_of
from persist_effects.errors import InvalidRequest


class ErrorPage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `--json` tells of a page, ``page`` being the whole of it where one is asked for."""

    name: str
    summary: str
    page: str | None = None


def explain(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The error, as Truncated; none: a list of all.")
    ] = None,
    *,
    list_all: Annotated[bool, typer.Option("--list", help="List all pages, each with its first sentence.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="The page as it is written, also on a terminal.")] = False,
    as_json: AsJson = False,
) -> None:
    """Tell what an error means, how it comes about, what was written, and what to do."""
    with exit_codes(as_json):
        if list_all and name is not None:
            raise InvalidRequest(f"--list is for all pages, and {name!r} is one: leave one of the two out")
        if name is None:
            _print_list(as_json)
            return
        text = page_text(name)
        if as_json:
            title = text.partition("\n")[0].removeprefix("# ")
            print_json(ErrorPage(title, summary_of(title), text))
        elif plain or not sys.stdout.isatty():
            sys.stdout.write(text)
        else:
            Console().print(Markdown(text))


def _print_list(as_json: bool) -> None:
    if as_json:
        for each in page_names():
            print_json(ErrorPage(each, summary_of(each)))
    else:
        sys.stdout.write("\n".join(lines_of_pages()) + "\n")
