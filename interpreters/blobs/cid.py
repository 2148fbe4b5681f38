"""Content identifiers: CIDv1, sha2-256, base32, as IPFS computes them by ``ipfs add --cid-version=1``.

Up to 256 KiB, the identifier is that of one block of raw bytes, and holds the hash of the bytes: ``bafkrei…``. What is
larger is cut into chunks of 256 KiB, each a block of raw bytes. Every 174 chunks get a node above them, which links to
them by their hashes, every 174 nodes get one above them, and so on to one root, whose hash is in the identifier:
``bafybei…``. A node is a block of dag-pb: the links, and a record of UnixFS that says how many bytes of the file lie
below each. So any part of a blob is proved by its chunk and the nodes on the way down to it.

Blobs of any size that older releases put have the hash of all their bytes in a ``bafkrei…``, and stay good.

Source: https://specs.ipfs.tech/unixfs/, and the package ``importer/balanced`` of https://github.com/ipfs/boxo.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import NamedTuple

from persist_effects.errors import InvalidRequest

CHUNK_BYTES = 262_144
"""How many bytes of a file are one block: what `ipfs add` cuts files into, ``--chunker=size-262144``."""

LINKS = 174
"""How many links a node has at the most: as many as kept a block at 8 KiB when IPFS chose it."""

DIGEST_BYTES = 32

RAW, DAG_PB = "raw", "dag-pb"

# Version 1, a codec, hash sha2-256 of 32 bytes: these four bytes and the multibase letter of base32 begin every such
# identifier with the same seven characters for each codec, and 52 more carry the digest. Of the last one, two bits are
# left over, and are 0: so no blob has two names.
_CID = re.compile(r"(?:bafkrei|bafybei)[a-z2-7]{51}[aeimquy4]")

# The codes of the codecs, with the version before them and the hash and its length behind: how a binary identifier
# begins.
_BEGINS = {RAW: b"\x01\x55\x12\x20", DAG_PB: b"\x01\x70\x12\x20"}

OnDigests = Callable[[int, bytes], None]
"""Takes the digests that one node links to, and their level: 0 is that of the chunks."""


class Link(NamedTuple):
    """What a node says of one below it."""

    digest: bytes
    file_bytes: int
    """How many bytes of the file lie below."""
    total_bytes: int
    """How many bytes all blocks there have."""


class CidBuilder:
    """Computes an identifier of bytes that come in pieces. It keeps at most 174 links of each level of the tree.

    Args:
        on_digests: Called with the digests below each node, once that is complete; of a blob that is one block, never.

    >>> builder = CidBuilder()
    >>> builder.feed(b"hel")
    >>> builder.feed(b"lo")
    >>> builder.cid() == cid_of(b"hello"), builder.size_bytes
    (True, 5)
    """

    def __init__(self, on_digests: OnDigests | None = None) -> None:
        self.size_bytes = 0
        self._on_digests = on_digests
        self._chunk = sha256()
        self._chunk_bytes = 0
        self._levels: list[list[Link]] = [[]]

    def feed(self, data: bytes) -> None:
        """Take the next bytes in.

        Args:
            data: As many as there are.
        """
        rest = memoryview(data)
        while rest:
            piece = rest[: CHUNK_BYTES - self._chunk_bytes]
            rest = rest[len(piece) :]
            self._chunk.update(piece)
            self._chunk_bytes += len(piece)
            if self._chunk_bytes == CHUNK_BYTES:
                self._end_chunk()
        self.size_bytes += len(data)

    def cid(self) -> str:
        """The identifier of all that came. Nothing more may come then.

        Returns:
            The identifier.
        """
        if self._chunk_bytes or not self._levels[0]:
            self._end_chunk()
        level = 0
        while level < len(self._levels) - 1 or len(self._levels[level]) > 1:
            self._close_node(level)
            level += 1
        return text_of(RAW if level == 0 else DAG_PB, self._levels[level][0].digest)

    def _end_chunk(self) -> None:
        self._add(0, Link(self._chunk.digest(), self._chunk_bytes, self._chunk_bytes))
        self._chunk, self._chunk_bytes = sha256(), 0

    def _add(self, level: int, link: Link) -> None:
        if level == len(self._levels):
            self._levels.append([])
        if len(self._levels[level]) == LINKS:
            # Only now that more comes: else it might be the root, or the last of its level.
            self._close_node(level)
        self._levels[level].append(link)

    def _close_node(self, level: int) -> None:
        links, self._levels[level] = self._levels[level], []
        if self._on_digests is not None:
            self._on_digests(level, b"".join(link.digest for link in links))
        block = node_block(level, links)
        self._add(
            level + 1,
            Link(
                sha256(block).digest(),
                sum(link.file_bytes for link in links),
                len(block) + sum(link.total_bytes for link in links),
            ),
        )


class LikeBuilder:
    """Computes the identifier of bytes that come in pieces, of the kind that another identifier is.

    Args:
        cid: The other one.

    >>> builder = LikeBuilder(raw_cid_of(bytes(2 * CHUNK_BYTES)))
    >>> builder.feed(bytes(2 * CHUNK_BYTES))
    >>> builder.cid() == raw_cid_of(bytes(2 * CHUNK_BYTES))
    True
    """

    def __init__(self, cid: str) -> None:
        self.size_bytes = 0
        self._whole = sha256() if is_raw(cid) else None
        self._levels: dict[int, bytearray] = {}
        self._tree = CidBuilder(lambda level, digests: self._levels.setdefault(level, bytearray()).extend(digests))

    def feed(self, data: bytes) -> None:
        """Take the next bytes in.

        Args:
            data: As many as there are.
        """
        if self._whole is None:
            self._tree.feed(data)
        else:
            self._whole.update(data)
        self.size_bytes += len(data)

    def cid(self) -> str:
        """The identifier of all that came. Nothing more may come then.

        Returns:
            The identifier.
        """
        return self._tree.cid() if self._whole is None else raw_cid_of_digest(self._whole.digest())

    def digests(self) -> bytes:
        """The digests below the nodes of the tree, level by level, once there is the identifier.

        Returns:
            The digests; none where it is of no tree.
        """
        return b"".join(self._levels[level] for level in sorted(self._levels))


def cid_of(data: bytes) -> str:
    """The identifier of these bytes.

    Args:
        data: The bytes.

    Returns:
        The identifier.

    >>> cid_of(b"hello")
    'bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq'
    >>> cid_of(bytes(CHUNK_BYTES + 1))
    'bafybeigllfqgfpqydppr6cmv56g7ax4wyhruzswvcefv6j5kj77nzttfki'
    """
    builder = CidBuilder()
    builder.feed(data)
    return builder.cid()


def raw_cid_of(data: bytes) -> str:
    """The identifier that holds the hash of all the bytes, however many there are: what older releases gave.

    Args:
        data: The bytes.

    Returns:
        The identifier.

    >>> raw_cid_of(b"hello") == cid_of(b"hello"), raw_cid_of(bytes(CHUNK_BYTES + 1))[:7]
    (True, 'bafkrei')
    """
    return raw_cid_of_digest(sha256(data).digest())


def raw_cid_of_digest(digest: bytes) -> str:
    """The identifier that holds the hash of all the bytes.

    Args:
        digest: That hash.

    Returns:
        The identifier.

    >>> raw_cid_of_digest(sha256(b"hello").digest()) == cid_of(b"hello")
    True
    """
    return text_of(RAW, digest)


def cid_like(cid: str, data: bytes) -> str:
    """The identifier of these bytes, of the kind that another identifier is.

    Args:
        cid: The other one.
        data: The bytes.

    Returns:
        The identifier, which is the other one if these are its bytes.

    >>> old = raw_cid_of(bytes(CHUNK_BYTES + 1))
    >>> cid_like(old, bytes(CHUNK_BYTES + 1)) == old
    True
    """
    return raw_cid_of(data) if is_raw(cid) else cid_of(data)


def text_of(codec: str, digest: bytes) -> str:
    """The identifier of a block.

    Args:
        codec: What the block is: `RAW` or `DAG_PB`.
        digest: Its hash.

    Returns:
        The identifier.

    >>> text_of(RAW, sha256(b"hello").digest()) == cid_of(b"hello")
    True
    """
    # Imported when the first blob is put: it takes 50 ms, and many stores never see a blob.
    try:
        from multiformats import CID, multihash
    except ModuleNotFoundError as error:
        raise InvalidRequest("blobs need the package multiformats: pip install multiformats") from error

    return str(CID("base32", 1, codec, multihash.wrap(digest, "sha2-256")))


def digest_in(cid: str) -> bytes:
    """The hash that an identifier holds.

    Args:
        cid: The identifier, which was checked.

    Returns:
        The hash's 32 bytes.

    >>> digest_in(cid_of(b"hello")) == sha256(b"hello").digest()
    True
    """
    try:
        from multiformats import CID
    except ModuleNotFoundError as error:
        raise InvalidRequest("blobs need the package multiformats: pip install multiformats") from error

    return bytes(CID.decode(cid).raw_digest)


def cid_in_base(text: str) -> str:
    """An identifier as it is written here, from one in any base, as IPFS nodes write them.

    Args:
        text: The identifier.

    Returns:
        The same in base32.

    Raises:
        ValueError: It is not an identifier.

    >>> cid_in_base("zb2rhZfjRh2FHHB2RkHVEvL2vJnCTcu7kwRqgVsf9gpkLgteo") == cid_of(b"hello")
    True
    """
    from multiformats import CID

    return str(CID.decode(text).set(base="base32", version=1))


def is_raw(cid: str) -> bool:
    """Whether an identifier holds the hash of a blob's bytes, and not that of the root of a tree.

    Args:
        cid: The identifier, which was checked.

    Returns:
        Whether it does.

    >>> is_raw(cid_of(b"hello")), is_raw(cid_of(bytes(CHUNK_BYTES + 1)))
    (True, False)
    """
    return cid.startswith("bafk")


def is_cid(text: str) -> bool:
    """Whether a text is an identifier of a kind that blobs have.

    Args:
        text: Any text.

    Returns:
        Whether it is.

    >>> is_cid(cid_of(b"hello")), is_cid("hello")
    (True, False)
    """
    return _CID.fullmatch(text) is not None


def check_cid(text: str) -> None:
    """Refuse what is not an identifier of a kind that blobs have.

    Args:
        text: Any text.

    Raises:
        InvalidRequest: It is not.

    >>> check_cid("hello")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: 'hello' is not a content identifier of a blob: ...
    """
    if not is_cid(text):
        raise InvalidRequest(
            f"{text!r:.80} is not a content identifier of a blob: give a CIDv1, raw or dag-pb, sha2-256, base32"
        )


# Nodes, as dag-pb writes them: records of Protocol Buffers, whose fields are in an order of their own.


def node_block(level: int, links: Sequence[Link]) -> bytes:
    """The block of a node.

    Args:
        level: That of what it links to: 0 is that of the chunks.
        links: What it links to, in order.

    Returns:
        The block.

    >>> len(node_block(0, [Link(bytes(32), CHUNK_BYTES, CHUNK_BYTES)]))
    58
    """
    begins = _BEGINS[RAW if level == 0 else DAG_PB]
    file_bytes = sum(link.file_bytes for link in links)
    # UnixFS: the type of a file is 2, field 1; its size is field 3, and that of each link field 4.
    unixfs = b"\x08\x02\x18" + _varint(file_bytes) + b"".join(b"\x20" + _varint(link.file_bytes) for link in links)
    # dag-pb: each link is field 2, of a hash, a name that is empty, and a size; then comes the data, field 1.
    linked = (_field(1, begins + link.digest) + b"\x12\x00\x18" + _varint(link.total_bytes) for link in links)
    return b"".join(_field(2, link) for link in linked) + _field(1, unixfs)


def links_in(block: bytes) -> tuple[bytes, int]:
    """What the block of a node says.

    Args:
        block: The block.

    Returns:
        The digests of what it links to, one after the other, and how many bytes of the file lie below.

    Raises:
        ValueError: It is not the block of a node of a file.

    >>> links_in(node_block(0, [Link(bytes(32), 7, 7)])) == (bytes(32), 7)
    True
    """
    digests, file_bytes = bytearray(), None
    for number, value in _fields(block):
        if number == 2 and isinstance(value, bytes):
            digests += dict(_bytes_fields(value))[1][-DIGEST_BYTES:]
        elif number == 1 and isinstance(value, bytes):
            file_bytes = dict(_fields(value)).get(3)
    if not isinstance(file_bytes, int):
        raise ValueError("it says nothing of the size of a file")
    return bytes(digests), file_bytes


def _bytes_fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    return ((number, value) for number, value in _fields(data) if isinstance(value, bytes))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a record, by their numbers: of the two types that nodes have. Raises ValueError for others."""
    at = 0
    while at < len(data):
        tag, at = _varint_at(data, at)
        value, at = _varint_at(data, at)
        if tag & 7 == 0:
            yield tag >> 3, value
        elif tag & 7 == 2 and at + value <= len(data):
            yield tag >> 3, data[at : at + value]
            at += value
        else:
            raise ValueError(f"no field of a node begins with {tag}")


def _varint_at(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while at < len(data):
        number |= (data[at] & 127) << shift
        shift += 7
        at += 1
        if data[at - 1] < 128:
            return number, at
    raise ValueError("a number breaks off")


def _field(number: int, data: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
