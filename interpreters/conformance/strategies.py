"""Hypothesis strategies for what a store may be given, the awkward corners first. Needs the extra ``testing``."""

import math
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from persist_effects.event import NAME_LIMIT_BYTES, Draft, Event
from persist_effects.machine import Effect, perform
from persist_effects.requests import (
    Append,
    Begin,
    KvDelete,
    KvEntries,
    KvGet,
    KvPut,
    LastSeq,
    Read,
    Request,
    Transact,
    TruncateThrough,
)

AWKWARD_NAMES: tuple[str, ...] = (
    # Names that are prefixes of each other, and their neighbours in the order of names.
    "a",
    "a/",
    "a/b",
    "a0",
    "A",
    "a-b",
    # What means something to an engine: NATS subjects, LIKE patterns, globs, paths, quotes and commands.
    "a.b",
    "a.*",
    "a.>",
    "*",
    ">",
    "$KV.a",
    "a%",
    "a_b",
    "aXb",
    "[a]?",
    "..",
    "/",
    "\\",
    "a'b",
    'a"b',
    "a;--",
    " ",
    " a",
    "a ",
    "CON",
    # What text is like: two spellings of one word, cases that fold oddly, line ends that are not control characters.
    "café",
    "cafe\u0301",
    "straße",
    "STRASSE",
    "İ",
    "a\u2028b",
    "\u200b",
    "\ufeffa",
    # The corners of the order by code point: UTF-16 sorts these otherwise, and the end of a range of names that
    # start with one of these cannot be found by adding one to its last character.
    "\ud7ff",
    "\ud7ffz",
    "\uff5e",
    "\uffff",
    "\U0001f600",
    "a\U0001f600",
    "a\U0010ffff",
    "\U0010ffff",
    "\U0010ffffz",
    # As long as a name may be.
    "a" * NAME_LIMIT_BYTES,
    "\U0001f600" * (NAME_LIMIT_BYTES // 4),
)
"""Valid names that a store is likely to treat wrongly."""

AWKWARD_VALUES: tuple[Any, ...] = (
    None,
    False,
    True,
    0,
    1,
    -1,
    2**31,
    -(2**31) - 1,
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    -(2**63),
    0.0,
    -0.0,
    1.0,
    0.1,
    5e-324,
    1.7976931348623157e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    "a\x00b",
    "cafe\u0301 \U0001f600 \u2028",
    "x" * 70_000,
    b"",
    b"\x00\xff",
    bytes(70_000),
    [],
    {},
    [[], {}, [None]],
    {"": {"": []}},
    {"b": 1, "a": 2},
    {"op": "persist/append", "__proto__": 1, "$type": None, "key with spaces": [1, 1.0, True, "1", b"1"]},
    list(range(1_000)),
)
"""Storable values that a store is likely to give back as something else."""


def names() -> st.SearchStrategy[str]:
    """Valid names of streams, keys and event types: 1 to 512 bytes of UTF-8, the awkward ones often.

    >>> from hypothesis import find
    >>> find(names(), lambda name: " " in name)
    ' '
    """
    text = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=NAME_LIMIT_BYTES // 4)
    return st.sampled_from(AWKWARD_NAMES) | text


def values() -> st.SearchStrategy[Any]:
    """Every kind of value that can be stored, by the rules of `persist_effects.codec`: plain and nested.

    >>> from hypothesis import find
    >>> find(values(), lambda value: type(value) is list and len(value) == 1)
    [None]
    """
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**64 - 1),
        st.sampled_from([-(2**63), 2**63, 2**64 - 1]),
        st.floats(allow_nan=True, allow_infinity=True),
        text,
        st.binary(max_size=20),
    )
    return st.recursive(
        scalars,
        lambda children: st.lists(children, max_size=3) | st.dictionaries(text, children, max_size=3),
        max_leaves=5,
    )


def drafts() -> st.SearchStrategy[Draft]:
    """Events to append, with and without a time and meta of their own.

    >>> from hypothesis import find
    >>> find(drafts(), lambda draft: draft.at is None).meta is None
    True
    """
    times = st.none() | st.integers(-(2**63) + 1, 2**63 - 1)
    metas = st.none() | st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), max_size=5), values(), max_size=2
    )
    return st.builds(Draft, st.sampled_from(["made", "paid", "a%"]) | names(), values(), times, metas)


def events() -> st.SearchStrategy[Event]:
    """Stored events, for folds and steps: of any stream, with any number and position from 1 on.

    >>> from hypothesis import find
    >>> find(events(), lambda event: event.seq > 1).seq
    2
    """
    numbers = st.integers(1, 2**63 - 1)
    return st.builds(
        lambda stream, seq, draft, at, position: Event(
            stream, seq, draft.type, at if draft.at is None else draft.at, draft.data, position, draft.meta
        ),
        names(),
        numbers,
        drafts(),
        st.integers(0, 2**53),
        numbers,
    )


class DrawnProgram:
    """A function that makes a program: it performs these requests in order, and returns their answers."""

    def __init__(self, requests: Sequence[Request[Any]]) -> None:
        self.requests = tuple(requests)

    def __call__(self) -> Effect[list[Any]]:
        """A fresh program."""
        answers = []
        for request in self.requests:
            answers.append((yield from perform(request)))  # noqa: PERF401 - no comprehension may yield
        return answers

    def __repr__(self) -> str:
        return f"DrawnProgram({list(self.requests)!r})"


def programs(
    streams: Sequence[str] = ("a", "b"), keys: Sequence[str] = ("k", "l"), max_requests: int = 6
) -> st.SearchStrategy[DrawnProgram]:
    """Functions that make programs of reads and writes, some of which expect something, on these streams and keys.

    Give them to a store's `run`, or several of them to `explore` and `explore_crashes`.

    >>> from hypothesis import find
    >>> find(programs(), lambda program: len(program.requests) == 2)
    DrawnProgram([LastSeq(stream='a'), LastSeq(stream='a')])
    """
    stream, key, expected = st.sampled_from(streams), st.sampled_from(keys), st.none() | st.integers(0, 3)
    small = st.builds(Draft, st.sampled_from(["made", "paid"]), st.none() | st.integers(0, 9))
    writes = (
        st.builds(Append, stream, st.lists(small, min_size=1, max_size=2).map(tuple), expected),
        st.builds(KvPut, key, st.none() | st.integers(0, 9), expected),
        st.builds(KvDelete, key, expected),
        st.builds(TruncateThrough, stream, st.integers(0, 3)),
        st.builds(Begin, stream, st.integers(1, 3)),
    )
    requests = st.one_of(
        st.builds(LastSeq, stream),
        st.builds(KvGet, key),
        st.builds(Read, stream),
        st.builds(KvEntries),
        *writes,
        st.builds(Transact, st.lists(st.one_of(writes), min_size=1, max_size=3).map(tuple)),
    )
    return st.builds(DrawnProgram, st.lists(requests, min_size=1, max_size=max_requests))


def same_value(a: Any, b: Any) -> bool:
    """Whether two values are the same to the last bit that a store must keep.

    Stricter than ``==``: types must match all the way down, zeros keep their sign, and dicts their order. But NaN is
    the same as NaN.

    >>> same_value([float("nan"), -0.0], [float("nan"), -0.0])
    True
    >>> same_value(1, True), same_value(1, 1.0), same_value(0.0, -0.0), same_value([1], (1,))
    (False, False, False, False)
    """
    if type(a) is not type(b):
        return False
    if type(a) is float:
        return (math.isnan(a) and math.isnan(b)) or struct.pack(">d", a) == struct.pack(">d", b)
    if type(a) is list:
        return len(a) == len(b) and all(map(same_value, a, b))
    if type(a) is dict:
        return list(a) == list(b) and all(map(same_value, a.values(), b.values()))
    return bool(a == b)
