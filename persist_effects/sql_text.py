r"""One SQL statement, as far as SQLite and PostgreSQL read it alike: its parameters, its names, what it may not be.

A parameter is ``:name``, on both. What stands in a comment, in a literal or in a quoted name is none, and neither is a
cast, ``::``. What the two would read differently is refused: a comment within a comment, or one without an end.

What a statement may not be is told by its words alone. So this keeps a slip from ending the store's transaction; what a
statement may touch is for each store to see to.

>>> sorted(parsed("INSERT INTO orders VALUES (:id, ':no', :total::int) -- :no").parameters)
['id', 'total']
"""

import math
import re
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

from persist_effects.errors import InvalidRequest, describe, repr_of

_TOKEN = re.compile(
    r"""
    (?P<space> \s+ | --[^\n]* | /\*(?:(?!/\*|\*/).)*\*/ )
  | (?P<literal> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>(?:[^\W\d]\w*)?)\$.*?\$(?P=tag)\$ )
  | (?P<quoted> "(?:[^"]|"")+" | `(?:[^`]|``)+` )
  | (?P<colons> :: | := )
  | :(?P<parameter> [A-Za-z_][A-Za-z0-9_]* )
  | (?P<word> [^\W\d][\w$]* )
  | (?P<number> \d[\w.]* )
  | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)

_CHANGES = {"INSERT", "UPDATE", "DELETE", "REPLACE", "MERGE", "WITH"}
_DEFINES = {"CREATE", "ALTER", "DROP"}
_DEFINED = {"TABLE", "INDEX", "VIEW", "MATERIALIZED", "VIRTUAL", "SEQUENCE", "TYPE"}
_BEFORE_DEFINED = {"OR", "REPLACE", "UNIQUE"}

_UNCLOSED = {"'": "a literal", '"': "a quoted name", "`": "a quoted name"}

_INT_MAX = 2**63 - 1


class Statement(NamedTuple):
    """What is known of a statement.

    Args:
        parts: Its text, cut where parameters stand: every second part is the name of one.
        parameters: The names of its parameters.
        names: Its words and quoted names, in lower case: whatever tables it names, they are among these.
    """

    parts: tuple[str, ...]
    parameters: frozenset[str]
    names: frozenset[str]


@lru_cache(maxsize=1_000)
def parsed(text: str) -> Statement:
    """Read a statement.

    Args:
        text: The statement.

    Returns:
        What is known of it.

    Raises:
        InvalidRequest: Where it is not one statement that a store may be given.

    >>> parsed("DELETE FROM orders; COMMIT")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: SQL 'DELETE FROM orders; COMMIT': more than one statement: give each as ...
    """
    if "\0" in text or not _is_encodable(text):
        raise refusal(text, "it has a zero character or a lone surrogate")
    parts, names, words = [""], set[str](), list[str]()
    is_over = False
    for kind, said in _tokens(text):
        if kind != "space" and is_over:
            raise refusal(text, "more than one statement: give each as a Sql of its own")
        if kind == "other":
            _check_closed(text, said)
            is_over = said == ";"
        elif kind == "word":
            words.append(said.upper())
            names.add(said.lower())
        elif kind == "quoted":
            quote = said[0]
            names.add(said[1:-1].replace(quote * 2, quote).lower())
        if kind == "parameter":
            parts += [said, ""]
        elif not is_over:
            parts[-1] += said
    _check_words(text, words)
    return Statement(tuple(parts), frozenset(parts[1::2]), frozenset(names))


def _tokens(text: str) -> list[tuple[str, str]]:
    """The kind of each token, and what stands there; of a parameter its name."""
    return [(found.lastgroup or "", found["parameter"] or found[0]) for found in _TOKEN.finditer(text)]


def _check_closed(text: str, token: str) -> None:
    if token in _UNCLOSED:
        raise refusal(text, f"{_UNCLOSED[token]} has no end")


def _check_words(text: str, words: list[str]) -> None:
    if not words:
        raise refusal(text, "there is no statement in it")
    tokens = [token for kind, token in _tokens(text) if kind != "space"]
    pairs = {(one + other[:1]).upper() for one, other in pairwise(tokens)}
    if not pairs.isdisjoint(("/*", "*/")):
        raise refusal(text, "a comment has no end, or another one in it")
    if not pairs.isdisjoint(('&"', "&'")):
        raise refusal(text, "it has a name or a literal behind &, which only one database would read: write it plainly")
    if "ROLLBACK" in words:
        raise refusal(text, "it says ROLLBACK, which would undo what others write too: a name like this is quoted")
    if words[0] in _CHANGES:
        return
    defined = next((word for word in words[1:] if word not in _BEFORE_DEFINED), "")
    if words[0] not in _DEFINES or defined not in _DEFINED:
        raise refusal(
            text,
            f"it begins with {' '.join(words[:2])}: a store takes INSERT, UPDATE, DELETE, REPLACE, MERGE and WITH, and "
            "CREATE, ALTER and DROP of a table, an index, a view, a sequence or a type",
        )


def refusal(text: str, why: str) -> InvalidRequest:
    """The error for a statement that is refused.

    >>> refusal("COMMIT", "it ends the transaction")
    InvalidRequest("SQL 'COMMIT': it ends the transaction")
    """
    return InvalidRequest(f"SQL {repr_of(text, 200)}: {why}")


def check_parameters(text: str, given: Any) -> None:
    """Refuse parameters that are not those of a statement, or that no column can hold.

    Args:
        text: The statement.
        given: The values, by names.

    Raises:
        InvalidRequest: Where they do not fit.

    >>> check_parameters("DELETE FROM orders WHERE id = :id", {"id": ["o-1"]})
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: SQL 'DELETE FROM orders WHERE id = :id': parameter 'id' is a list, ...
    """
    if type(given) is not dict:
        raise refusal(text, f"params is {describe(given)}: give a dict, the value of :name under 'name'")
    asked = parsed(text).parameters
    if asked != given.keys():
        missing, unknown = sorted(asked - given.keys()), sorted(map(str, given.keys() - asked))
        what = f"has no value for :{missing[0]}" if missing else f"has no :{unknown[0]}, for which a value was given"
        raise refusal(text, f"it {what}")
    for name, value in given.items():
        trouble = _trouble_with(value)
        if trouble:
            raise refusal(text, f"parameter {name!r} is {describe(value)}: {trouble}")


def _trouble_with(value: Any) -> str:
    kind = type(value)
    if kind is int:
        return "" if -_INT_MAX - 1 <= value <= _INT_MAX else "an integer has 64 bits: give it as text"
    if kind is float:
        return "not a number, of which SQLite makes NULL: give None" if math.isnan(value) else ""
    if kind is str:
        has_zero = "\0" in value
        return "text has no zero characters and no lone surrogates" if has_zero or not _is_encodable(value) else ""
    if value is None or kind in (bool, bytes):
        return ""
    return "give None, a bool, int, float, str or bytes: a list or a dict as text, by json.dumps"


def _is_encodable(text: str) -> bool:
    return text == text.encode(errors="replace").decode()
