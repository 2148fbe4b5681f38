"""Any part of a blob proved by its identifier: by the digests of its chunks, which those of the nodes above prove.

The digests below the nodes of a blob's tree are kept in one piece, level by level from the chunks up, 32 bytes each:
about an eight-thousandth of the blob. The root's own is in the identifier. So a chunk is proved by reading as many
digests as a node has links, once for each level, and nothing is believed of what was kept.
"""

from collections.abc import Callable
from hashlib import sha256

from interpreters.blobs.cid import CHUNK_BYTES, DIGEST_BYTES, LINKS, Link, digest_in, node_block

_NO_DIGEST = bytes(DIGEST_BYTES)


class Unproved(Exception):
    """The digests that were kept are not those of the blob, or some are missing: they prove nothing."""


class BlobTree:
    """The shape of the tree of a blob, which its size determines.

    Args:
        size_bytes: The blob's size.

    >>> BlobTree(45 * 1024 * 1024).counts
    [180, 2, 1]
    """

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.counts = [max(1, -(-size_bytes // CHUNK_BYTES))]
        """How many chunks there are, and nodes on each level above, up to the root."""
        while self.counts[-1] > 1:
            self.counts.append(-(-self.counts[-1] // LINKS))
        self._full_bytes: dict[int, int] = {}

    def place_of(self, level: int, index: int) -> tuple[int, int]:
        """Where the digests below a node are kept.

        Args:
            level: The node's level, from 1.
            index: Which one of that level it is.

        Returns:
            The offset, and how many bytes they take.
        """
        first = sum(self.counts[: level - 1]) + index * LINKS
        return first * DIGEST_BYTES, self.count_below(level, index) * DIGEST_BYTES

    def file_bytes(self, level: int, index: int) -> int:
        """How many of the blob's bytes lie below a node, or in a chunk.

        Args:
            level: Its level, 0 for a chunk.
            index: Which one of that level it is.

        Returns:
            The number.
        """
        below: int = CHUNK_BYTES * LINKS**level
        return min(below, self.size_bytes - index * below)

    def links(self, level: int, index: int, digests: bytes) -> list[Link]:
        """What a node links to.

        Args:
            level: The node's level, from 1.
            index: Which one of that level it is.
            digests: Those of what it links to.

        Returns:
            The links.
        """
        first = index * LINKS
        return [
            Link(
                digests[at * DIGEST_BYTES : (at + 1) * DIGEST_BYTES],
                self.file_bytes(level - 1, first + at),
                self._total_bytes(level - 1, first + at),
            )
            for at in range(len(digests) // DIGEST_BYTES)
        ]

    def count_below(self, level: int, index: int) -> int:
        """How many links a node has.

        Args:
            level: The node's level, from 1.
            index: Which one of that level it is.

        Returns:
            The number.
        """
        return min(LINKS, self.counts[level - 1] - index * LINKS)

    def _total_bytes(self, level: int, index: int) -> int:
        """How many bytes all blocks of a node and below it have, which does not depend on what is in them."""
        file_bytes = self.file_bytes(level, index)
        if level == 0:
            return file_bytes
        if file_bytes == CHUNK_BYTES * LINKS**level:
            if level not in self._full_bytes:
                self._full_bytes[level] = self._added_up(level, index)
            return self._full_bytes[level]
        return self._added_up(level, index)

    def _added_up(self, level: int, index: int) -> int:
        links = self.links(level, index, _NO_DIGEST * self.count_below(level, index))
        return len(node_block(level - 1, links)) + sum(link.total_bytes for link in links)


class ProvedDigests:
    """The digests of a blob's chunks, each proved when it is asked for. For one thread at a time.

    Args:
        cid: The blob's identifier, that of a tree.
        size_bytes: Its size, which is proved too.
        read: Reads the digests below a node, whatever they are: of its level, its index there, and its own digest.

    >>> from interpreters.blobs.cid import CidBuilder
    >>> kept = {}
    >>> builder = CidBuilder(lambda level, digests: kept.setdefault(level, digests))
    >>> builder.feed(bytes(2 * CHUNK_BYTES))
    >>> proved = ProvedDigests(builder.cid(), 2 * CHUNK_BYTES, lambda level, index, digest: kept[level - 1])
    >>> proved.of_chunk(1) == sha256(bytes(CHUNK_BYTES)).digest()
    True
    """

    def __init__(self, cid: str, size_bytes: int, read: Callable[[int, int, bytes], bytes]) -> None:
        self._root = digest_in(cid)
        self._tree = BlobTree(size_bytes)
        self._read = read
        # Of each level, those below the node that was asked for last.
        self._proved: dict[int, tuple[int, bytes]] = {}

    def of_chunk(self, index: int) -> bytes:
        """The digest of a chunk.

        Args:
            index: Which chunk.

        Returns:
            The digest.

        Raises:
            Unproved: What was kept is not of this blob.
        """
        return self._digest(0, index)

    def _digest(self, level: int, index: int) -> bytes:
        if level == len(self._tree.counts) - 1:
            return self._root
        node = index // LINKS
        proved = self._proved.get(level)
        if proved is None or proved[0] != node:
            proved = self._proved[level] = node, self._prove(level + 1, node)
        at = (index - node * LINKS) * DIGEST_BYTES
        return proved[1][at : at + DIGEST_BYTES]

    def _prove(self, level: int, index: int) -> bytes:
        """The digests below a node."""
        expected = self._digest(level, index)
        digests = self._read(level, index, expected)
        if len(digests) != self._tree.count_below(level, index) * DIGEST_BYTES:
            raise Unproved
        if sha256(node_block(level - 1, self._tree.links(level, index, digests))).digest() != expected:
            raise Unproved
        return digests
