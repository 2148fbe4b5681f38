"""The URL of a store that is a path: what stands behind its scheme, and the options after the question mark."""

import re
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, unquote

from persist_effects.errors import InvalidRequest, describe

Numbers = Mapping[str, Callable[[str], Any]]
"""How the text of an option in a URL is read, by its name; a text is taken as it stands."""

_ESCAPED = re.compile("%[0-9A-Fa-f]{2}")


def _else(scheme: str) -> str:
    return (
        f"write it as an option, percent-encoded: '{scheme}:?path=…', or give it as a keyword: "
        f"open_store('{scheme}:', path=…)"
    )


def options_given(scheme: str, rest: str, keywords: Mapping[str, Any], numbers: Numbers) -> dict[str, Any]:
    """The options of a store, from its URL and from keywords. ``path`` is among them.

    Args:
        scheme: What stands before the colon.
        rest: What stands behind it: a path, and options, as in ``var/orders?sync=os``.
        keywords: Those that were given beside the URL.
        numbers: Which options are numbers.

    Returns:
        The options, by their names.

    Raises:
        InvalidRequest: For what cannot be read, a path that is likely meant to be another, and what is given twice.

    >>> options_given("file", "var/orders", {"sync": "os"}, {})
    {'path': 'var/orders', 'sync': 'os'}
    """
    in_url = options_of_url(scheme, rest, numbers)
    twice = sorted(in_url.keys() & keywords.keys())
    if twice:
        raise InvalidRequest(
            f"{twice[0]} is given in the URL '{scheme}:{rest}' and as a keyword: leave one of them out"
        )
    given = {**in_url, **keywords}
    path = given.get("path", "")
    if not isinstance(path, str) and not hasattr(path, "__fspath__"):
        raise InvalidRequest(f"path is {describe(path)}: give a str or a Path")
    return given


def options_of_url(scheme: str, rest: str, numbers: Numbers) -> dict[str, Any]:
    """What stands behind a scheme in a URL, as options of the store, of which ``path`` is one if it is there.

    Args:
        scheme: What stands before the colon.
        rest: What stands behind it.
        numbers: Which options are numbers.

    Returns:
        The options, by their names.

    Raises:
        InvalidRequest: For what cannot be read, and for a path that is likely meant to be another.

    >>> options_of_url("file", "var/orders?sync=os", {}), options_of_url("file", "?path=var/what%3F", {})
    ({'path': 'var/orders', 'sync': 'os'}, {'path': 'var/what?'})
    """
    path, _, query = rest.partition("?")
    given = _options_in(scheme, query, rest, numbers)
    if not path:
        return given
    if "path" in given:
        raise InvalidRequest(f"the URL '{scheme}:{rest}' has two paths: leave one of them out")
    _check_plain(scheme, path)
    return {"path": path, **given}


def _check_plain(scheme: str, path: str) -> None:
    """Refuse a path that stands in a URL as it is, and likely means another than the one that it would be."""
    if path != path.strip() or not path.replace("\0", "").isprintable():
        raise InvalidRequest(
            f"the path {path!r} has white space at an end, or a character that is not printable: mend it, or "
            f"{_else(scheme)}"
        )
    if path.startswith("//") and not path.startswith("///"):
        relative = path.lstrip("/")
        raise InvalidRequest(
            f"'{scheme}:{path}' names a host, and there is none: write '{scheme}:{relative}' for a path below this "
            f"directory, or '{scheme}:/{relative}'"
        )
    if path.startswith("///") and _ESCAPED.search(path):
        raise InvalidRequest(
            f"'{scheme}:{path}' looks percent-encoded, and a path is taken as it stands: write "
            f"'{scheme}:{unquote(path[2:])}', or for a name with the % in it '{scheme}:{path[2:]}'"
        )


def _options_in(scheme: str, query: str, rest: str, numbers: Numbers) -> dict[str, Any]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        given = {name: numbers.get(name, str)(value) for name, value in pairs}
    except ValueError as error:
        raise InvalidRequest(
            f"the options {query!r} of a URL cannot be read: {error}: write name=value&…{if_in_path(scheme, rest)}"
        ) from error
    for name in given:
        if sum(name == other for other, _ in pairs) > 1:
            raise InvalidRequest(
                f"the option {name!r} is given twice in the URL '{scheme}:{rest}': leave one of them out"
            )
    return given


def if_in_path(scheme: str, rest: str) -> str:
    """What to advise where an option may be meant as a part of the path.

    Args:
        scheme: What stands before the colon.
        rest: What stands behind it.

    Returns:
        The advice, to be added to a sentence; nothing where there is no question mark.
    """
    return f". Where the ? belongs to the path, {_else(scheme)}" if "?" in rest else ""
