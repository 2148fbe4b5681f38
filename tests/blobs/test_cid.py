"""The identifiers of bytes are those that IPFS gives them, whatever pieces they come in."""

import hashlib
import random
import tracemalloc

import pytest

from interpreters.blobs.cid import (
    CHUNK_BYTES,
    LINKS,
    CidBuilder,
    Link,
    check_cid,
    cid_like,
    cid_of,
    digest_in,
    is_cid,
    is_raw,
    node_block,
    raw_cid_of,
)

MIB = 1024 * 1024

# What ipfs-core 0.18.1 gives: `add` with cid-version=1, raw-leaves=true, chunker=size-262144, of the bytes 0 to 250
# again and again.
GIVEN_BY_IPFS = {
    0: "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    1: "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu",
    CHUNK_BYTES - 1: "bafkreiagptg6ztonoojy4wflk3wwusl5xt4vcy6uult4wa7oemsjtxhjsu",
    CHUNK_BYTES: "bafkreibruh455iawsviqslif5c7uurdcfdemh22mtnytyzvnzn75kpejxy",
    CHUNK_BYTES + 1: "bafybeiexg2oqkfnj56l7fcmawswqbijt5shq4b5rg6a546uwpkqqzwjioi",
    MIB: "bafybeiedpcapwld4tkgtzwahfofgn4wex5ryysf4se6hwpmlrsh4ntnrau",
    LINKS * CHUNK_BYTES: "bafybeihpe5snhzneq7xs53nivmsopto5lrogo3wjynauqylqeym5a3irbm",
    LINKS * CHUNK_BYTES + 1: "bafybeib4y7ghw2rq7bracc4xwtxrbzo7cfvagdpte2tmrkgwl6dyard3cm",
    45 * MIB: "bafybeic3emv2arnxcd3uaaysb732uhooheweuhttvsc2v5ut36jhoric3u",
}


def bytes_of_size(size_bytes: int) -> bytes:
    return (bytes(range(251)) * (size_bytes // 251 + 1))[:size_bytes]


@pytest.mark.parametrize("size_bytes", GIVEN_BY_IPFS)
def test_a_cid_is_the_one_that_ipfs_gives(size_bytes):
    assert cid_of(bytes_of_size(size_bytes)) == GIVEN_BY_IPFS[size_bytes]
    assert is_cid(GIVEN_BY_IPFS[size_bytes])


@pytest.mark.parametrize("seed", range(40))
def test_the_pieces_that_bytes_come_in_change_nothing(seed):
    draw = random.Random(seed)
    size_bytes = draw.randint(0, 3 * CHUNK_BYTES)
    data, builder, begin = draw.randbytes(size_bytes), CidBuilder(), 0
    while begin < size_bytes:
        piece = data[begin : begin + draw.choice([1, 1000, CHUNK_BYTES, CHUNK_BYTES + 1, size_bytes])]
        builder.feed(piece)
        begin += len(piece)
    assert builder.size_bytes == size_bytes
    assert builder.cid() == cid_of(data)


def test_the_digests_below_each_node_are_told_from_the_chunks_up():
    data = random.Random(7).randbytes((LINKS + 1) * CHUNK_BYTES)
    told: list[tuple[int, bytes]] = []
    builder = CidBuilder(lambda level, digests: told.append((level, digests)))
    builder.feed(data)
    cid = builder.cid()
    chunks = [hashlib.sha256(data[begin : begin + CHUNK_BYTES]).digest() for begin in range(0, len(data), CHUNK_BYTES)]
    nodes = [
        node_block(0, [Link(digest, CHUNK_BYTES, CHUNK_BYTES) for digest in some])
        for some in (chunks[:LINKS], chunks[LINKS:])
    ]
    digests = [hashlib.sha256(node).digest() for node in nodes]
    assert told == [(0, b"".join(chunks[:LINKS])), (0, chunks[LINKS]), (1, b"".join(digests))]
    below = [LINKS * CHUNK_BYTES, CHUNK_BYTES]
    root = node_block(1, [Link(digests[at], below[at], below[at] + len(nodes[at])) for at in range(2)])
    assert digest_in(cid) == hashlib.sha256(root).digest()


def test_a_cid_is_computed_in_constant_memory():
    piece = bytes(MIB)
    cid_of(piece)
    tracemalloc.start()
    try:
        builder = CidBuilder()
        for _ in range(200):
            builder.feed(piece)
        builder.cid()
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_the_hash_of_all_bytes_is_an_identifier_too_as_older_references_have_it():
    data = bytes(CHUNK_BYTES + 1)
    old, new = raw_cid_of(data), cid_of(data)
    assert (is_raw(old), is_raw(new)) == (True, False)
    assert digest_in(old) == hashlib.sha256(data).digest()
    for cid in (old, new):
        check_cid(cid)
        assert cid_like(cid, data) == cid
        assert cid_like(cid, data[:-1]) != cid
