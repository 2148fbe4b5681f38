"""FORMAT.md says what is in the files: its worked example, byte by byte, and a store's files by a decoder of their own.

The decoder below knows only what FORMAT.md says, and imports nothing of the engine.
"""

import hashlib
import re
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from file_disks import EngineStore, MemoryDisk, Workload, contents

import interpreters.stores.file
from interpreters.stores.file.format import (
    EVENT,
    FORMAT_VERSION,
    SegmentHeader,
    decode_frame,
    decode_header,
    encode_frame,
    encode_header,
)
from persist_effects import Event
from persist_effects.codec import decode_event, encode_event

FORMAT = Path(interpreters.stores.file.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")
EXAMPLE = FORMAT[FORMAT.index("## A worked example") :]
COMMIT_FRAME, MARK_FRAME, FOOTER_FRAME, EVENT_FRAME, ENTRY_FRAME = 1, 2, 3, 4, 5


def hex_blocks(text: str) -> list[bytes]:
    """The bytes of each fenced block: on each line hexadecimal digits, then what they are."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [
        bytes.fromhex("".join(re.match(r"[0-9a-f ]*?(?=  |$)", line)[0] for line in block.splitlines()))
        for block in blocks
    ]


def said(pattern: str) -> str:
    """What the example's text says in one place."""
    [found] = re.findall(pattern, EXAMPLE)
    return found


# An independent decoder, by FORMAT.md alone


class Decoded(NamedTuple):
    offset: int
    kind: int
    watermark: int
    content: Any
    checksum: bytes


def decode_segment(data: bytes) -> tuple[dict[str, Any], list[Decoded]]:
    """A segment's header and frames, up to its end or the first zeros."""
    magic, version, checksum, uuid, number, salt, first_position, digest, zero = struct.unpack(
        "<8sII16sQQQ16s8s", data[:80]
    )
    assert (magic, version, zero) == (b"PEFFSEG1", 1, bytes(8))
    assert zlib.crc32(data[:12] + bytes(4) + data[16:80]) == checksum
    seed, offset, frames = zlib.crc32(uuid + struct.pack("<QQ", number, salt)), 80, []
    while offset < len(data) and any(data[offset : offset + 16]):
        found, length, kind, units = struct.unpack_from("<IIII", data, offset)
        end = offset + 16 + (length + 7) // 8 * 8
        assert zlib.crc32(data[offset + 4 : end], seed ^ (offset // 8)) == found, f"the checksum at {offset}"
        assert not any(data[offset + 16 + length : end]), f"the padding at {offset}"
        payload = data[offset + 16 : offset + 16 + length]
        content = msgspec.msgpack.decode(payload) if payload else None
        frames.append(Decoded(offset, kind, units * 8, content, data[offset : offset + 4]))
        offset = end
    return {"uuid": uuid, "number": number, "salt": salt, "first_position": first_position, "digest": digest}, frames


def digest_of(frames: list[Decoded]) -> bytes:
    checksums = b"".join(frame.checksum for frame in frames if frame.kind != FOOTER_FRAME)
    return hashlib.blake2b(checksums, digest_size=16).digest()


# The worked example


def test_the_worked_example_is_what_the_program_writes_and_reads():
    header_bytes, *frame_blocks = hex_blocks(EXAMPLE)
    header = SegmentHeader(bytes.fromhex(said(r"UUID `(\w+)`")), 1, int(said(r"salt `0x(\w+)`"), 16), 1, bytes(16))
    assert encode_header(header) == header_bytes
    assert decode_header(header_bytes, "log/00000001.seg") == header
    assert header.seed == int(said(r"seed of its frames is `0x(\w+)`"), 16)

    [frame_bytes] = frame_blocks
    payload = encode_event(Event(*example_event()))
    assert encode_frame(header.seed, 80, EVENT, 80, payload) == frame_bytes
    frame = decode_frame(frame_bytes, 0, header.seed, 80)
    assert frame is not None
    assert (frame.type, frame.watermark, frame.end) == (EVENT, 80, 80 + len(frame_bytes))
    assert decode_event(frame.payload) == Event(*example_event())
    assert len(frame_bytes) == int(said(r"frame, (\d+) bytes long"))


def test_the_worked_example_is_what_its_text_says_to_an_independent_decoder():
    header, [frame] = decode_segment(b"".join(hex_blocks(EXAMPLE)))
    assert header == {
        "uuid": bytes.fromhex(said(r"UUID `(\w+)`")),
        "number": 1,
        "salt": int(said(r"salt `0x(\w+)`"), 16),
        "first_position": 1,
        "digest": bytes(16),
    }
    assert (frame.offset, frame.kind, frame.watermark) == (80, EVENT_FRAME, 80)
    assert frame.content == [*example_event(), None]


def example_event() -> list[Any]:
    return msgspec.json.decode("[" + said(r"`Event\((.*?)\)`") + "]")


# A store's files


def test_the_files_of_a_store_are_what_format_md_says():
    disk, workload = MemoryDisk(), Workload(3)
    store = EngineStore(disk, segment_bytes=900)
    for _ in range(40):
        store.commit([workload.next()])
    shown = contents(store.handlers)
    store.close()
    files = disk.image()

    name, checksum = files["CURRENT"].split(b" ")
    assert f"{zlib.crc32(name):08x}".encode() == checksum
    body = files[name.decode()][4:]
    assert files[name.decode()][:4] == struct.pack("<I", zlib.crc32(body))
    version, uuid, epoch, _, next_segment, sealed, active, *_ = msgspec.msgpack.decode(body)
    assert (version, epoch, active) == (FORMAT_VERSION, 1, None)
    assert len(sealed) > 3

    events, entries, before, position = [], {}, bytes(16), 0
    for number, length, digest, *_ in sealed:
        assert number < next_segment
        data = files[f"log/{number:08d}.seg"]
        assert len(data) == length
        header, frames = decode_segment(data)
        assert (header["uuid"], header["number"], header["digest"]) == (uuid, number, before)
        assert header["first_position"] == position + 1
        assert digest == digest_of(frames)
        assert frames[-1].kind == FOOTER_FRAME
        assert frames[-1].content == [len(frames) - 1, digest]
        assert all(frame.watermark <= frame.offset for frame in frames)
        for frame in frames[:-1]:
            position = take(frame, events, entries, position)
        before = digest

    dropped = {stream: shown[f"stream {stream}"][0] - len(shown[f"stream {stream}"][1]) for stream in shown["streams"]}
    left = [event for event in events if event[1] > dropped[event[0]]]
    assert left == [list(msgspec.structs.astuple(event)) for event in shown["all"]]
    assert entries == {key: (shown[f"key {key}"].revision, shown[f"key {key}"].value) for key in shown["keys"]}
    assert position == shown["position"]


def take(frame: Decoded, events: list[Any], entries: dict[str, Any], position: int) -> int:
    """Take in a frame; returns the highest position so far."""
    if frame.kind == EVENT_FRAME:
        events.append(frame.content)
        return frame.content[5]
    if frame.kind == ENTRY_FRAME:
        key, revision, value = frame.content
        entries[key] = (revision, value)
        return position
    if frame.kind != COMMIT_FRAME:
        assert frame.kind == MARK_FRAME
        return position
    runs, its_events, puts, deleted, _drops, _states, _revision, highest = frame.content[:8]
    assert sum(count for *_, count in runs) == len(its_events)
    numbered = [(stream, first + i, at + i) for stream, first, at, count in runs for i in range(count)]
    assert numbered == [(event[0], event[1], event[5]) for event in its_events]
    events += its_events
    for key, revision, value in puts:
        entries[key] = (revision, value)
    for key in deleted:
        del entries[key]
    return max(position, highest)
