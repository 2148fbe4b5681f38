"""What is kept of a follower in kv, and under which keys.

===========================================  ==========================================================================
key                                          what stands there
===========================================  ==========================================================================
``follow/<name>``                            `Record`: the version whose effects are seen, and how far it has come
``follow-next/<name>``                       `Record`: the version that is built beside it, while one is
``follow-part/<name>/<generation>/<part>``   `Partition`: how far one of a group has come, and whose it is
``follow-member/<name>/<member>``            `SignOfLife`: that a member of a group gives
``follow-aside/<name>/<generation>/<hash>``  `Aside`: a stream of which events were set aside
``model/<name>/<generation>/<key>``          a value of the follower's read model
``follow-tables/<name>/<generation>``        `ModelTables`: those of its read model in tables, as long as there are any
===========================================  ==========================================================================

A generation is one way through the events, from the first one on: each version is one, and so is each rebuild. All that
belongs to one has its number in its keys, so that two never meet.
"""

import hashlib
from typing import Annotated, Any, TypeVar

import msgspec

from persist_effects.errors import InvalidRequest
from persist_effects.event import INT64_MAX, check_name
from persist_effects.requests import Entry

R = TypeVar("R", bound=msgspec.Struct)

Natural = Annotated[int, msgspec.Meta(ge=0, le=INT64_MAX)]
Counted = Annotated[int, msgspec.Meta(ge=1, le=INT64_MAX)]

HEADS = "follow/"
"""How the keys of all followers start."""

KEPT = "follow"
"""How all keys start that are kept of followers, beside those of read models; others may start so too."""

_WITH_POSITIONS = (HEADS, "follow-next/", "follow-part/", "follow-aside/")


class Reached(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """How far a follower, or a partition of it, has come: through ``position``.

    ``aside`` counts the streams of which events were set aside, ``skipped`` the events that were passed over since
    their handler failed, ``missed`` at the most those that were truncated before they were seen. ``retry``: what was
    set aside is to be tried again.
    """

    position: Natural
    aside: Natural = 0
    skipped: Natural = 0
    missed: Natural = 0
    retry: bool = False


class Record(Reached, frozen=True, omit_defaults=True, kw_only=True):
    """A follower, and which generation of it this is.

    Args:
        position: Through which position its events took effect. Of a group, its partitions say so, which begin here.
        prefix: How the names of its streams start.
        types: Only events of these types; None: of all.
        version: That of the handler.
        generation: The number of its way through the events.
        partitions: Of a group, how many it has; 0: it is none.
        has_model: Whether it has a read model, whose keys have the generation in them.
        has_tables: Whether that is one in tables, whose names have the generation in them.
        building: The generation that is built to take its place; 0: none is.
        target: Of one that is built, the position that it must have come to.
        hands_over: What is built has nearly caught up, so that this one is to wait for it.
        dropping: The generations of which something may be left that has to go.
        is_forgotten: Somebody has begun to remove it.
    """

    prefix: str = ""
    types: list[str] | None = None
    version: Counted = 1
    generation: Counted = 1
    partitions: Natural = 0
    has_model: bool = False
    has_tables: bool = False
    building: Natural = 0
    target: Natural = 0
    hands_over: bool = False
    dropping: list[int] = []
    is_forgotten: bool = False

    @property
    def last_generation(self) -> int:
        """The highest generation that was ever begun."""
        return max(self.generation, self.building, *self.dropping)


class Partition(Reached, frozen=True, omit_defaults=True, kw_only=True):
    """A part of a group's streams, by a hash of their names. ``owner`` is a member; empty: nobody has it."""

    owner: str = ""


class SignOfLife(msgspec.Struct, frozen=True):
    """A member of a group gives a sign of life: each has another number, so that the revision changes."""

    beat: Natural
    generation: Counted
    partitions: Counted


class Aside(msgspec.Struct, frozen=True):
    """Of a stream, the events from ``first`` to ``through`` were set aside: none of them took effect.

    ``position`` is about that of the first: none of them stands before it.
    """

    stream: str
    first: Counted
    through: Counted
    position: Natural


def head_key(name: str) -> str:
    """Where a follower is kept.

    >>> head_key("totals")
    'follow/totals'
    """
    return f"{HEADS}{name}"


def next_key(name: str) -> str:
    """Where the version is kept that is built to take a follower's place.

    >>> next_key("totals")
    'follow-next/totals'
    """
    return f"follow-next/{name}"


def parts_prefix(name: str, generation: int) -> str:
    """How the keys of a group's partitions start.

    >>> parts_prefix("totals", 1)
    'follow-part/totals/1/'
    """
    return f"follow-part/{name}/{generation}/"


def members_prefix(name: str) -> str:
    """How the keys of a group's members start.

    >>> members_prefix("totals")
    'follow-member/totals/'
    """
    return f"follow-member/{name}/"


def asides_prefix(name: str, generation: int) -> str:
    """How the keys start of the streams of which a generation has set events aside.

    >>> asides_prefix("totals", 1)
    'follow-aside/totals/1/'
    """
    return f"follow-aside/{name}/{generation}/"


def aside_key(name: str, generation: int, stream: str) -> str:
    """Where it is kept what was set aside of a stream: under a hash of its name, since both names may be long.

    >>> aside_key("totals", 1, "orders/1")
    'follow-aside/totals/1/19fc7c4a75d7bb4e'
    """
    return f"{asides_prefix(name, generation)}{hash_of(stream):016x}"


def aside_stream(name: str) -> str:
    """The stream that tells what a follower has set aside.

    >>> aside_stream("totals")
    'set-aside/totals'
    """
    return f"{ASIDE_STREAMS}{name}"


ASIDE_STREAMS = "set-aside/"
"""How the names start of the streams that tell what was set aside. Followers of everything pass over them."""


def model_prefix(name: str, generation: int) -> str:
    """How the keys of a read model start.

    >>> model_prefix("totals", 2)
    'model/totals/2/'
    """
    return f"model/{name}/{generation}/"


def tables_key(name: str, generation: int) -> str:
    """Where it is kept which tables a generation of a read model has.

    >>> tables_key("orders", 2)
    'follow-tables/orders/2'
    """
    return f"follow-tables/{name}/{generation}"


def hash_of(stream: str) -> int:
    """A number of 64 bits, the same for a name everywhere and for ever.

    >>> hash_of("orders/1") % 16
    14
    """
    return int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "big")


def check_follower_name(name: str) -> None:
    """Refuse what cannot be a follower's name.

    >>> check_follower_name("totals")
    """
    check_name("follower name", name)
    check_name("follower's checkpoint key", head_key(name))


def record_in(found: Entry | None, name: str) -> Record | None:
    """The follower that an entry keeps; None: there is none. Raises `InvalidRequest` for what is something else.

    >>> record_in(Entry({"position": 7}, 1), "totals").position
    7
    """
    if found is None:
        return None
    return _decoded(
        found,
        Record,
        f"key {head_key(name)!r} holds {found.value!r:.80}, which is not a checkpoint of a follower: "
        "delete it, or give the follower another name",
    )


def kept_in(found: Entry, kind: type[R], key: str) -> R:
    """What an entry of one of the other keys keeps. Raises `InvalidRequest` for what is something else.

    >>> kept_in(Entry({"position": 7, "owner": "w1"}, 1), Partition, "follow-part/totals/1/0").owner
    'w1'
    """
    return _decoded(found, kind, f"key {key!r} holds {found.value!r:.80}, which a follower has not put there")


def _decoded(found: Entry, kind: type[R], complaint: str) -> R:
    try:
        return msgspec.convert(found.value, kind)
    except msgspec.ValidationError as error:
        raise InvalidRequest(complaint) from error


def positions_in(key: str, value: Any) -> dict[str, int]:
    """The positions that are kept of a follower under a key, by the names of their fields.

    In another store, into which its events are copied, they are other ones.

    >>> positions_in("follow/totals", {"position": 7, "prefix": "orders/"}), positions_in("color", {"position": 7})
    ({'position': 7}, {})
    """
    if not key.startswith(_WITH_POSITIONS) or not isinstance(value, dict):
        return {}
    return {name: value[name] for name in ("position", "target") if type(value.get(name)) is int}


def plain(record: msgspec.Struct) -> Any:
    """What is kept of it.

    >>> plain(Record(position=7, prefix="orders/"))
    {'position': 7, 'prefix': 'orders/'}
    """
    return msgspec.to_builtins(record)
