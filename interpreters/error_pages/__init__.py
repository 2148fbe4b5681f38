"""A page for each error, which is installed with the package: what it means, what was written, what to do.

``persist-effects explain NAME`` prints one, as does ``python -m interpreters.error_pages NAME``, which needs no extra.
A line below an error names its page, where a command, pytest or the end of the process shows it. The error itself has
neither another text nor a note for that: programs, doctests and traces compare both.
"""

import sys
from collections.abc import Iterator
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING

from persist_effects.errors import InvalidRequest

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_PACKAGES = ("persist_effects", "interpreters")


def _folder() -> "Traversable":
    # Where a page is asked for, and not by each program that opens a store.
    from importlib.resources import files

    return files(__name__)


@cache
def page_names() -> tuple[str, ...]:
    """The names of all pages, which are those of the classes.

    >>> "Truncated" in page_names(), "index" in page_names()
    (True, False)
    """
    found = (page.name.removesuffix(".md") for page in _folder().iterdir() if page.name.endswith(".md"))
    return tuple(sorted(name for name in found if name != "index"))


def page_text(name: str) -> str:
    """The page of a class, as Markdown.

    Args:
        name: The class's name, in whatever case, or its whole name as a traceback has it.

    Returns:
        The page.

    Raises:
        InvalidRequest: There is no such page.

    >>> page_text("persist_effects.errors.Truncated").splitlines()[0]
    '# Truncated'
    >>> page_text("Trunkated")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: there is no page 'Trunkated': there is Truncated, ... lists all
    """
    wanted = name.strip().rstrip(":").rpartition(".")[2].lower()
    by_lower = {each.lower(): each for each in page_names()}
    if wanted not in by_lower:
        import difflib

        near = [by_lower[each] for each in difflib.get_close_matches(wanted, by_lower)]
        told = f"there is {', '.join(near)}; " if near else ""
        raise InvalidRequest(f"there is no page {name!r}: {told}`persist-effects explain` without a name lists all")
    return _folder().joinpath(f"{by_lower[wanted]}.md").read_text("utf-8")


def summary_of(name: str) -> str:
    """The first sentence of a page.

    >>> summary_of("StoreClosed")
    'The store was closed, and then used.'
    """
    paragraph = page_text(name).split("\n\n")[1].replace("\n", " ")
    return paragraph.partition(". ")[0].rstrip(".") + "."


def lines_of_pages() -> list[str]:
    """All pages, each with its first sentence.

    >>> lines_of_pages()[0].split()[0]
    'Abandoned'
    """
    width = max(map(len, page_names()))
    return [f"{name:{width}}  {summary_of(name).replace('`', '')}" for name in page_names()]


def pages_of(error: BaseException) -> list[str]:
    """The names of the pages that tell of an error, and of those that caused it or are grouped in it.

    A class of your own has the page of the nearest of ours that it is derived from.

    >>> from persist_effects import StoreClosed
    >>> pages_of(StoreClosed("closed")), pages_of(KeyError("tea"))
    (['StoreClosed'], [])
    """
    found = (_page_of_class(type(each)) for each in _chain(error))
    return list(dict.fromkeys(name for name in found if name is not None))


def see_pages(error: BaseException) -> str:
    """Which commands print the pages that tell of an error, a line for each; nothing for an error of others.

    >>> from persist_effects import StoreClosed
    >>> see_pages(StoreClosed("closed")), see_pages(KeyError("tea"))
    ('see: persist-effects explain StoreClosed', '')
    """
    return "\n".join(f"see: persist-effects explain {name}" for name in pages_of(error))


def _page_of_class(kind: type) -> str | None:
    for each in kind.__mro__:
        if each.__module__.partition(".")[0] in _PACKAGES and each.__name__ in page_names():
            return each.__name__
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left.append(each.__cause__ if each.__cause__ or each.__suppress_context__ else each.__context__)
        if isinstance(each, BaseExceptionGroup):
            left += reversed(each.exceptions)


def name_pages_of_uncaught() -> None:
    """Have the traceback of an error that ends the process followed by the names of its pages.

    What was there before to show it shows it as before. Notebooks and test runners, which show errors themselves, are
    not affected. A second call changes nothing.

    >>> name_pages_of_uncaught()
    >>> sys.excepthook.__module__
    'interpreters.error_pages'
    """
    before = sys.excepthook
    if before.__module__ == __name__:
        return

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        before(kind, error, trace)
        if (told := see_pages(error)) and sys.stderr is not None:
            sys.stderr.write(told + "\n")

    sys.excepthook = show
