"""Wrong shippers are found: each by the look that its row names."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from mutants import Patch, edit
from shipped_stores import ShippedStore, look_at_a_kept_log, look_at_every_crash, look_at_every_position

from interpreters.stores.file.upkeep.shipping import shipper, targets
from interpreters.stores.file.upkeep.shipping.pieces import SegmentShipping
from interpreters.stores.file.upkeep.shipping.restoring import Cut, _Restoring
from interpreters.stores.file.upkeep.shipping.shipper import Shipper
from interpreters.stores.file.upkeep.shipping.source import SourceReader
from persist_effects import InvalidRequest, StoreUnavailable
from persist_effects.errors import CorruptStore
from persist_effects.requests import KvPut

pytestmark = pytest.mark.exploration


class Mutant(NamedTuple):
    """A mistake, and the look that finds it."""

    name: str
    patch: Patch
    look: Callable[[], Any]


def look_at_a_growing_tail() -> None:
    """Look after every write, and restore, while a shipper is killed at each request now and then."""
    shipped = ShippedStore(1)
    for number in range(40):
        shipped.write(KvPut("color", number))
        shipped.look()
        shipped.check_newest()


MUTANTS = [
    Mutant(
        "an object has its name before it is synced",
        edit(targets._put, "-    yield from perform(disk.Sync(_UNFINISHED))"),
        look_at_every_crash,
    ),
    Mutant(
        "an object's name is not on the disk when it counts as put",
        edit(targets._put, '-    yield from perform(disk.SyncDirectory("."))'),
        look_at_every_crash,
    ),
    Mutant(
        "pieces of the tail are deleted before the one that has their bytes is there",
        edit(
            SegmentShipping._put_whole,
            """
            +    for piece in self._contents.pieces_from(self._key, self._start):
            +        yield from self._delete(piece.name(self._key))
                 start = self._start
            """,
        ),
        look_at_every_crash,
    ),
    Mutant(
        "short pieces of the tail are put together without the first",
        edit(
            SegmentShipping._put_tail,
            """
            -        yield from self._put_piece(SegmentPiece(pieces[first].start, end))
            -        yield from self._delete_covered(start)
            +        for piece in pieces[first:-1]:
            +            yield from self._delete(piece.name(self._key))
            """,
        ),
        look_at_a_growing_tail,
    ),
    Mutant(
        "a catalog is put before what it names",
        edit(
            Shipper._ship,
            """
            +    if self._catalogs and self._catalogs[-1].number != manifest.number:
            +        yield from self._put(f"catalog.{manifest.number:019d}", encode(msgspec.structs.replace(
            +            self._catalogs[-1], number=manifest.number, sealed=[SealedSegment(
            +                one.number, header.salt, one.length_bytes, one.digest, one.replaced, 0, 0)
            +                for one, header in zip(manifest.sealed, source.headers, strict=False)])))
                 self._wanted_bytes = bytes_behind(source, self._known)
            """,
        ),
        look_at_every_crash,
    ),
    Mutant(
        "a log is given up as soon as a compaction has made another",
        edit(
            shipper.catalogs_to_keep,
            """
            -        if catalog.base != later.base and is_young:
            +        if catalog.base != later.base and is_young and keep_days is not None:
            """,
        ),
        look_at_every_position,
    ),
    Mutant(
        "a log is given up a day too early",
        edit(
            shipper.catalogs_to_keep,
            """
            -        is_young = keep_days is None or now - later.since_at < keep_days * _DAY
            +        is_young = keep_days is None or now - later.since_at < (keep_days - 1) * _DAY
            """,
        ),
        look_at_a_kept_log,
    ),
    Mutant(
        "a log is never given up",
        edit(
            shipper.catalogs_to_keep,
            """
            -        is_young = keep_days is None or now - later.since_at < keep_days * _DAY
            +        is_young = True
            """,
        ),
        look_at_a_kept_log,
    ),
    Mutant(
        "a compacted log counts as whole from its beginning",
        edit(
            Shipper._publish,
            """
            -    elif base:
            +    elif base == b"none":
            """,
        ),
        look_at_every_position,
    ),
    Mutant(
        "the commit of a position is left out",
        edit(
            Cut.is_past,
            """
            -    return (self.position is not None and counters.position > self.position) or (
            +    return (self.position is not None and counters.position >= self.position > 0) or (
            """,
        ),
        look_at_every_position,
    ),
    Mutant(
        "the first commit past a position is restored too",
        edit(
            _Restoring._write_anew,
            """
            -        frames = frames[:past]
            +        frames = frames if past is None else frames[: past + 1]
            """,
        ),
        look_at_every_position,
    ),
    Mutant(
        "the last commits on the disk are not shipped until others follow",
        edit(
            SourceReader._measured,
            """
            -        proof.end = max(proof.end, synced)
            +        pass
            """,
        ),
        look_at_every_position,
    ),
    Mutant(
        "what a recovery has moved is not shipped with the segment that was cut",
        edit(
            SourceReader._measured,
            """
            -        proof.take(frames)
            +        proof.end = max(proof.end, *(frame.watermark for frame in frames))
            ...
            -        proof.end = max(proof.end, synced)
            +        pass
            """,
        ),
        look_at_every_crash,
    ),
    Mutant(
        "a segment that a recovery has cut keeps its old end",
        edit(
            SegmentShipping.seal,
            """
            -    if self.check.offset > sealed.length_bytes:
            +    if self.check.offset > sealed.length_bytes + 1_000_000:
            """,
        ),
        look_at_every_position,
    ),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_wrong_shipper_is_found(mutant, monkeypatch):
    mutant.patch(monkeypatch)
    with pytest.raises((AssertionError, CorruptStore, InvalidRequest, StoreUnavailable, pytest.fail.Exception)):
        mutant.look()


def test_the_shipper_as_it_is_passes_the_look_that_no_other_test_has():
    look_at_a_growing_tail()
