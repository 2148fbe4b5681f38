"""How far a target is behind its store."""

import msgspec

from interpreters.stores.file.format import COMMIT, EVENT, SegmentHeader, commit_in, decode_place
from interpreters.stores.file.manifest import segment_path
from interpreters.stores.file.scan import Scan, Segment
from interpreters.stores.file.upkeep.shipping.checking import Counters
from interpreters.stores.file.upkeep.shipping.layout import SegmentKey, TargetContents
from interpreters.stores.file.upkeep.shipping.source import Source
from persist_effects.machine import Effect


class ShippingLag(msgspec.Struct, frozen=True):
    """What a store has that a target has not.

    ``seconds`` is how old the oldest event of it is, None where it has none; ``position`` and ``revision`` are how far
    the target goes.
    """

    bytes: int
    positions: int
    seconds: float | None
    position: int
    revision: int


def lag_between(source: Source, contents: TargetContents, shipped: Counters, now: int) -> Effect[ShippingLag]:
    """How far a target, which counts up to so much, is behind."""
    behind = bytes_behind(source, contents)
    at = (yield from oldest_event_behind(source, contents, shipped.position)) if behind else now
    positions = max(0, (yield from position_of(source)) - shipped.position)
    seconds = None if at is None else max(0.0, (now - at) / 1_000_000)
    return ShippingLag(behind, positions, seconds, shipped.position, shipped.revision)


def bytes_behind(source: Source, contents: TargetContents) -> int:
    """How many bytes of a store's log are not in a target."""
    return sum(length - covered for _, length, covered in segments_behind(source, contents))


def segments_behind(source: Source, contents: TargetContents) -> list[tuple[SegmentHeader, int, int]]:
    """The segments that a target has not all of, with their lengths, and how much of each is there."""
    lengths = [one.length_bytes for one in source.manifest.sealed] + ([source.end] if source.end else [])
    measured = [
        (header, length, contents.covered(SegmentKey(header.number, header.salt)))
        for header, length in zip(source.headers, lengths, strict=True)
    ]
    return [one for one in measured if one[2] < one[1]]


def oldest_event_behind(source: Source, contents: TargetContents, position: int) -> Effect[int | None]:
    """When the first event was appended that is past a position and not in a target; None where there is none."""
    for header, length, covered in segments_behind(source, contents):
        scan = Scan(Segment(header.number, segment_path(header.number), header.seed, length, False))
        while frames := (yield from scan.frames()):
            for frame in frames:
                if frame.end > covered and frame.type in (COMMIT, EVENT):
                    places = map(decode_place, commit_in(frame).events)
                    found = next((place.at for place in places if place.position > position), None)
                    if found is not None:
                        return found
    return None


def position_of(source: Source) -> Effect[int]:
    """The position of a store's newest event."""
    position = source.seen.position
    if source.manifest.active is None and source.manifest.sealed:
        header, last = source.headers[-1], source.manifest.sealed[-1]
        scan = Scan(Segment(last.number, segment_path(last.number), header.seed, last.length_bytes, False))
        counters = Counters()
        while frames := (yield from scan.frames()):
            counters.take_ends(frames)
        position = max(position, counters.position)
    return position
