"""The command that prints a page, made of nothing but Python."""

import sys
from collections.abc import Sequence

from interpreters.error_pages import lines_of_pages, page_text
from persist_effects.errors import InvalidRequest


def main(arguments: Sequence[str]) -> int:
    """Print the page of the class that is named, or the list of all; returns the exit code.

    >>> main(["StoreClosed", "--plain"])  # doctest: +ELLIPSIS
    # StoreClosed
    ...
    """
    given = [one for one in arguments if one not in {"--plain", "--list"}]
    try:
        if len(given) > ("--list" not in arguments) or any(one.startswith("-") for one in given):
            raise InvalidRequest(f"explain was given {' '.join(given)}: give one name, or none for the list of all")
        sys.stdout.write(page_text(given[0]) if given else "\n".join(lines_of_pages()) + "\n")
    except InvalidRequest as error:
        sys.stderr.write(f"persist-effects: {error}\n")
        return 2
    return 0
