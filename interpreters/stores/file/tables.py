"""What index files say of streams and keys: tables by name, looked into by bisection and taken in only when asked for.

A store of a million streams is opened as quickly as one of ten: of each sealed segment a few columns are there, and
what they say of a name is put together when somebody asks for it. Each such question takes in two more names, so that
after a while nothing is left to look for. A question about all names takes in all of them, a slice at a time, so that
others need not wait until that is done.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import chain, count, groupby, repeat
from operator import itemgetter
from typing import Generic, Literal, NamedTuple, Protocol, TypeVar

import msgspec

from interpreters.stores.file.manifest import index_path
from interpreters.stores.file.places import StreamIndex, ref_in, revision_in, spot_of
from persist_effects.errors import CorruptStore

M = TypeVar("M")

TAKEN_BESIDE = 2
"""How many names more each look for one takes in: about as much work again."""

SLICE = 1000
"""How many names are taken in at a time where all are asked for: a few milliseconds, for which others wait."""

_LIMIT = 1 << 63
"""Sequence numbers and positions are below: they can still be counted on from."""

_FEW = 16
"""To look for a name takes about as long as to walk over so many."""


# As index files have them

Column = memoryview
"""Numbers, one after the other. Those that were read are part of what was read, and not copied."""


class StreamColumns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a segment says of its streams, by ascending names: 8 bytes a number, 4 bytes an end."""

    names: str
    """One after the other; ``name_ends`` says how many characters come before the end of each."""
    name_ends: Column
    refs: Column
    """The frames of each; ``ref_ends`` says how many come before the end of each stream's."""
    ref_ends: Column
    firsts: Column
    """The first event of each of those frames, of streams where one is not one event; ``first_ends`` likewise."""
    first_ends: Column
    first_seqs: Column
    last_seqs: Column
    last_positions: Column


class KeyColumns(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a segment says of its keys, by ascending names; a deleted one has 0 for its revision and its ref."""

    names: str
    name_ends: Column
    revisions: Column
    refs: Column


class IndexedStream(NamedTuple):
    """What an index file says of a stream. ``firsts`` is None where each of ``refs`` stands for one event."""

    name: str
    refs: bytes | Column
    firsts: bytes | Column | None
    first_seq: int
    last_seq: int
    last_position: int


def stream_columns(streams: Iterable[IndexedStream]) -> StreamColumns:
    """The columns of streams, which come by ascending names."""
    names, refs, firsts = [], [], []
    name_ends, ref_ends, first_ends = array("I"), array("I"), array("I")
    first_seqs, last_seqs, last_positions = array("Q"), array("Q"), array("Q")
    characters = ref_count = first_count = 0
    for stream in streams:
        characters += len(stream.name)
        ref_count += len(stream.refs) // 8
        first_count += len(stream.firsts or b"") // 8
        names.append(stream.name)
        name_ends.append(characters)
        refs.append(stream.refs)
        ref_ends.append(ref_count)
        firsts.append(stream.firsts or b"")
        first_ends.append(first_count)
        first_seqs.append(stream.first_seq)
        last_seqs.append(stream.last_seq)
        last_positions.append(stream.last_position)
    return StreamColumns(
        "".join(names),
        _column(name_ends),
        memoryview(b"".join(refs)),
        _column(ref_ends),
        memoryview(b"".join(firsts)),
        _column(first_ends if first_count else array("I")),
        _column(first_seqs),
        _column(last_seqs),
        _column(last_positions),
    )


def key_columns(spots: Iterable[tuple[str, int]]) -> KeyColumns:
    """The columns of keys and their spots, which come by ascending names; 0 for a deleted one."""
    names: list[str] = []
    name_ends, revisions, refs = array("I"), array("Q"), array("Q")
    characters = 0
    for key, spot in spots:
        characters += len(key)
        names.append(key)
        name_ends.append(characters)
        revisions.append(revision_in(spot))
        refs.append(ref_in(spot))
    return KeyColumns("".join(names), _column(name_ends), _column(revisions), _column(refs))


def _column(numbers: "array[int]") -> Column:
    return memoryview(numbers.tobytes())


# As they are looked into


class Table(Protocol[M]):
    """What a segment says of some names. Its rows are numbered from 0 on, by ascending names."""

    def __len__(self) -> int: ...

    def name_at(self, row: int) -> str:
        """The name of a row."""
        ...

    def names(self) -> Iterator[str]:
        """All names."""
        ...

    def find(self, name: str) -> int | None:
        """The row of a name."""
        ...

    def added(self, member: M | None, name: str, row: int, /) -> M | None:
        """What is known of a name once its row is added to what the segments before say."""
        ...

    def add_rows(self, members: dict[str, M], gone: set[str], begin: int, end: int, /) -> None:
        """Add these rows, of names that are no members and not gone, where no other segment says anything of them."""
        ...


class _Names:
    """The names of a table, in one piece."""

    def __init__(self, names: str, ends: Column) -> None:
        self._names = names
        self._ends = _numbers("I", ends)
        if (self._ends[-1] if self._ends else 0) != len(names):
            raise ValueError(f"{len(self._ends)} names that do not end with their {len(names)} characters")

    def __len__(self) -> int:
        return len(self._ends)

    def name_at(self, row: int) -> str:
        """The name of a row."""
        return self._names[self._ends[row - 1] if row else 0 : self._ends[row]]

    def names(self, begin: int = 0, end: int | None = None) -> Iterator[str]:
        """All names, or those of these rows."""
        ends = self._ends[begin:end]
        return map(self._names.__getitem__, map(slice, chain((self._ends[begin - 1] if begin else 0,), ends), ends))

    def find(self, name: str) -> int | None:
        """The row of a name."""
        row = bisect_left(range(len(self._ends)), name, key=self.name_at)
        return row if row < len(self._ends) and self.name_at(row) == name else None


class StreamTable(_Names):
    """What a segment of this number says of its streams.

    Raises ValueError where the columns do not fit each other, and `CorruptStore` later where a row cannot be.
    """

    def __init__(self, number: int, columns: StreamColumns) -> None:
        super().__init__(columns.names, columns.name_ends)
        self._number = number
        self._refs, self._ref_ends = columns.refs, _numbers("I", columns.ref_ends)
        self._firsts, self._first_ends = columns.firsts, _numbers("I", columns.first_ends)
        self._first_seqs = _numbers("Q", columns.first_seqs)
        self._last_seqs = _numbers("Q", columns.last_seqs)
        self._last_positions = _numbers("Q", columns.last_positions)
        count = len(self)
        lengths = {len(self._ref_ends), len(self._first_seqs), len(self._last_seqs), len(self._last_positions)}
        if lengths != {count} or len(self._first_ends) not in (0, count):
            raise ValueError(f"columns of {sorted(lengths)} and {len(self._first_ends)} rows for {count} streams")
        _check_ends("refs", self._refs, self._ref_ends)
        _check_ends("first events", self._firsts, self._first_ends)

    def added(self, member: StreamIndex | None, name: str, row: int) -> StreamIndex:
        """A stream with what a row says of it."""
        if member is None:
            member = StreamIndex(name)
        refs, firsts = self._places_at(row)
        first_seq, last_seq, last_position = self._first_seqs[row], self._last_seqs[row], self._last_positions[row]
        if (first_seq | last_seq | last_position) >= _LIMIT:
            raise self._wrong(row, "numbers that are too high")
        member.extend(refs, firsts, first_seq)
        member.last_seq = max(member.last_seq, last_seq)
        member.last_position = max(member.last_position, last_position)
        return member

    def add_rows(self, members: dict[str, StreamIndex], _gone: set[str], begin: int, end: int) -> None:
        """Add the streams of these rows that are no members, where no other segment says anything of them."""
        # Runs for every stream when all are asked for.
        rows = zip(self.heads(begin, end), self._ref_ends[begin:end], self._first_seqs[begin:end], strict=True)
        refs, has_firsts = self._refs.cast("Q"), bool(self._first_ends)
        ref = self._ref_ends[begin - 1] if begin else 0
        for row, ((name, last_seq, last_position), ref_end, first_seq) in enumerate(rows, begin):
            if name not in members:
                is_first_event = ref_end - ref == first_seq == 1 and not has_firsts
                if is_first_event and last_seq | last_position < _LIMIT:
                    members[name] = StreamIndex(name, last_seq, last_position, refs[ref])
                else:
                    members[name] = self.added(None, name, row)
            ref = ref_end

    def heads(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[str, int, int]]:
        """The name of each stream, or of those in these rows, its last sequence number and its last position."""
        return zip(self.names(begin, end), self._last_seqs[begin:end], self._last_positions[begin:end], strict=True)

    def rows(self) -> Iterator[IndexedStream]:
        """All rows, as they were written. Raises `CorruptStore` at one that cannot be."""
        for row in range(len(self)):
            yield IndexedStream(
                self.name_at(row),
                *self._places_at(row),
                self._first_seqs[row],
                self._last_seqs[row],
                self._last_positions[row],
            )

    def _places_at(self, row: int) -> tuple[Column, Column | None]:
        """The refs of a row, and their first events where one is not one event."""
        ends = self._ref_ends
        refs = self._refs[(ends[row - 1] if row else 0) << 3 : ends[row] << 3]
        if not self._first_ends:
            return refs, None
        ends = self._first_ends
        firsts = self._firsts[(ends[row - 1] if row else 0) << 3 : ends[row] << 3]
        if firsts and len(firsts) != len(refs):
            raise self._wrong(row, f"{len(firsts)} bytes of first events and {len(refs)} of refs")
        return refs, firsts or None

    def _wrong(self, row: int, found: str) -> CorruptStore:
        path = index_path(self._number)
        return CorruptStore(
            f"{path}: expected stream {self.name_at(row)!r} to have its places, found {found}: close the store, "
            f"remove {path}, which is then made again from the segment, and open it anew"
        )


class KeyTable(_Names):
    """What a segment says of its keys: their spots, or that they were deleted.

    Raises ValueError where the columns do not fit each other.
    """

    def __init__(self, columns: KeyColumns) -> None:
        super().__init__(columns.names, columns.name_ends)
        self._revisions, self._refs = _numbers("Q", columns.revisions), _numbers("Q", columns.refs)
        if {len(self._revisions), len(self._refs)} != {len(self)}:
            raise ValueError(f"{len(self._revisions)} revisions and {len(self._refs)} refs of {len(self)} keys")

    def added(self, _member: int | None, _name: str, row: int) -> int | None:
        """The spot of a row; None where the key was deleted."""
        return spot_of(self._refs[row], self._revisions[row]) or None

    def add_rows(self, members: dict[str, int], gone: set[str], begin: int, end: int) -> None:
        """Add the keys of these rows that are no members and not gone, where no other segment says anything of them."""
        names, refs, revisions = self.names(begin, end), self._refs[begin:end], self._revisions[begin:end]
        for name, ref, revision in zip(names, refs, revisions, strict=True):
            if revision and name not in members and name not in gone:
                members[name] = spot_of(ref, revision)

    def rows(self) -> Iterator[tuple[str, int]]:
        """All keys and their spots; 0 for a deleted one."""
        return zip(self.names(), map(spot_of, self._refs, self._revisions), strict=True)


class Tables(Generic[M]):
    """The tables of the sealed segments, in the order of the log, until all they say is taken in.

    Whoever asks holds the store's lock. An interrupt may come anywhere.

    Args:
        members: Where what is known of a name is put. What is there is as of now; of other names, the tables know.
    """

    def __init__(self, members: dict[str, M]) -> None:
        self._members = members
        self._tables: list[Table[M]] = []
        # The members that are gone, though a table has them.
        self._gone: set[str] = set()
        self._next = (0, 0)
        # What takes in all names, between two slices.
        self._slices: Iterator[bool] | None = None

    @property
    def are_taken_in(self) -> bool:
        """Whether all that is known stands in the members."""
        return not self._tables

    def add(self, table: Table[M]) -> None:
        """Add what the next segment says. Members that are there already get it at once."""
        members = self._members
        if len(members) * _FEW < len(table):
            rows = [row for row in map(table.find, list(members)) if row is not None]
        else:
            rows = [row for row, name in enumerate(table.names()) if name in members]
        for row in rows:
            name = table.name_at(row)
            member = table.added(members[name], name, row)
            if member is None:
                del members[name]
            else:
                members[name] = member
        self._tables.append(table)
        self._slices = None

    def expect(self, count: int) -> None:
        """Say that so many names are about to be asked for. For many of them, all is taken in, which is cheaper."""
        if self._tables and count * _FEW > sum(map(len, self._tables)):
            self.take_all()

    def replace(self, tables: Sequence[Table[M]]) -> None:
        """Say that other segments are in the place of all these, and what they say of names that are no members yet."""
        if self._tables:
            self._tables, self._next, self._slices = list(tables), (0, 0), None

    def note_gone(self, name: str) -> None:
        """Say that a member was taken out: it is not to be looked for any more."""
        if self._tables:
            self._gone.add(name)

    def take(self, name: str) -> M | None:
        """What the tables say of a name that is no member yet, now one; None where they do not have it."""
        found = self._look_for(name)
        for _ in range(TAKEN_BESIDE):
            self._take_next()
        return found

    def take_all(self) -> None:
        """Take in all that the tables say."""
        while self.take_slice():
            pass

    def take_slice(self) -> bool:
        """Take in some more of what the tables say, by ascending names. Returns whether something is left.

        Name by name, so that an interrupt leaves nothing half; the next slice is then looked for from the first name.
        """
        if self._tables:
            slices, self._slices = self._slices or self._take_in_slices(), None
            if next(slices, True):
                self._forget()
            else:
                self._slices = slices
        return bool(self._tables)

    def _take_in_slices(self) -> Iterator[bool]:
        """Take in a slice before each False."""
        members, gone, tables = self._members, self._gone, self._tables
        if len(tables) == 1:
            for begin in range(0, len(tables[0]), SLICE):
                tables[0].add_rows(members, gone, begin, begin + SLICE)
                yield False
            return
        rows = (zip(table.names(), repeat(number), count()) for number, table in enumerate(tables))
        for taken, (name, of_name) in enumerate(groupby(merge(*rows), itemgetter(0)), 1):
            if name not in members and name not in gone:
                member: M | None = None
                for _, number, row in of_name:
                    member = tables[number].added(member, name, row)
                if member is not None:
                    members[name] = member
            if not taken % SLICE:
                yield False

    def _look_for(self, name: str) -> M | None:
        if name in self._gone:
            return None
        found: M | None = None
        for table in self._tables:
            row = table.find(name)
            if row is not None:
                found = table.added(found, name, row)
        if found is not None:
            self._members[name] = found
        return found

    def _take_next(self) -> None:
        number, row = self._next
        while number < len(self._tables) and row == len(self._tables[number]):
            number, row = number + 1, 0
        if number == len(self._tables):
            self._forget()
            return
        name = self._tables[number].name_at(row)
        if name not in self._members:
            self._look_for(name)
        self._next = number, row + 1

    def _forget(self) -> None:
        self._tables, self._gone, self._next, self._slices = [], set(), (0, 0), None


def _numbers(code: Literal["I", "Q"], data: Column) -> "memoryview[int]":
    """The numbers in some bytes, which are not copied. Raises ValueError where they are no whole number of them."""
    size_bytes = array(code).itemsize
    if len(data) % size_bytes:
        raise ValueError(f"{len(data)} bytes of numbers of {size_bytes} bytes")
    return data.cast(code)


def _check_ends(what: str, data: Column, ends: Sequence[int]) -> None:
    if (ends[-1] if ends else 0) * 8 != len(data):
        raise ValueError(f"{len(data)} bytes of {what}, of which the last ends at {ends[-1] * 8 if ends else 0}")
