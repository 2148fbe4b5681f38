"""A directory of blobs, against a plain copy with sync of a file; and a bucket of NATS, against nats-py's own store."""

import asyncio
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import nats
from nats.aio.client import Client
from nats.js.object_store import ObjectStore

from benchmarks.ground import new_directory
from benchmarks.table import Bound, Row, rate
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import read_through
from interpreters.blobs.objects import NatsBlobs
from interpreters.disk.files import open_to_read
from interpreters.nats.private_cluster import CLIENT_PORT, PrivateCluster

MIB = 1024 * 1024


class BlobGround(NamedTuple):
    """A file of so many MiB, a directory of blobs that has it, and room for more."""

    mebibytes: int
    source: Path
    blobs: DirectoryBlobs
    cid: str


@contextmanager
def prepared_blob(mebibytes: int) -> Iterator[BlobGround]:
    draw = Random(mebibytes)  # noqa: S311
    with new_directory() as directory, closing(DirectoryBlobs(directory / "blobs")) as blobs:
        source = directory / "film"
        with source.open("wb") as file:
            for _ in range(mebibytes):
                file.write(draw.randbytes(MIB))
        with open_to_read(source) as file:
            cid = blobs.put_file(file).cid
        yield BlobGround(mebibytes, source, blobs, cid)


def put(ground: BlobGround) -> float:
    with (
        new_directory() as directory,
        closing(DirectoryBlobs(directory / "blobs")) as blobs,
        open_to_read(ground.source) as file,
    ):
        return rate(ground.mebibytes, lambda: blobs.put_file(file))


def read(ground: BlobGround) -> float:
    return rate(ground.mebibytes, lambda: read_through(ground.blobs, ground.cid))


def copied_with_sync(ground: BlobGround) -> float:
    with new_directory() as directory:
        return rate(ground.mebibytes, lambda: _copy(ground.source, directory / "copy"))


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
    for path in (target, target.parent):
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


class BucketGround(NamedTuple):
    """A file of so many MiB, and two buckets on one server that have it: ours, and one of nats-py's object store."""

    mebibytes: int
    source: Path
    blobs: NatsBlobs
    cid: str
    loop: asyncio.AbstractEventLoop
    plain: ObjectStore


@contextmanager
def prepared_bucket(mebibytes: int) -> Iterator[BucketGround]:
    with prepared_blob(mebibytes) as ground, PrivateCluster() as cluster:
        place = f"{cluster.host}:{CLIENT_PORT}"
        loop = asyncio.new_event_loop()
        client: Client = loop.run_until_complete(nats.connect(f"nats://{place}"))
        plain = loop.run_until_complete(client.jetstream().create_object_store("plain"))
        with closing(NatsBlobs([place], "blobs")) as blobs, closing(loop):
            bucket = BucketGround(mebibytes, ground.source, blobs, ground.cid, loop, plain)
            put_into_bucket(bucket)
            put_by_nats(bucket)
            yield bucket
            loop.run_until_complete(client.close())


def put_into_bucket(ground: BucketGround) -> float:
    with open_to_read(ground.source) as file:
        return rate(ground.mebibytes, lambda: ground.blobs.put_file(file))


def put_by_nats(ground: BucketGround) -> float:
    with open_to_read(ground.source) as file:
        return rate(ground.mebibytes, lambda: ground.loop.run_until_complete(ground.plain.put("film", file)))


def read_from_bucket(ground: BucketGround) -> float:
    return rate(ground.mebibytes, lambda: read_through(ground.blobs, ground.cid))


class _Nowhere(io.RawIOBase):
    """Takes all that is written."""

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        return len(data)


def read_by_nats(ground: BucketGround) -> float:
    def read() -> None:
        ground.loop.run_until_complete(ground.plain.get("film", writeinto=_Nowhere()))  # type: ignore[arg-type]

    return rate(ground.mebibytes, read)


PUT = Row(
    name="blobs: put a file of 100 MiB into a directory, against a plain copy with sync",
    unit="MiB/s",
    bound=Bound.AT_LEAST,
    must=0.5,
    operations=100,
    prepare=prepared_blob,
    ours=put,
    peer=copied_with_sync,
)

PUT_INTO_BUCKET = PUT._replace(
    name="blobs: put a file of 100 MiB into a bucket of NATS, against nats-py's object store",
    prepare=prepared_bucket,
    ours=put_into_bucket,
    peer=put_by_nats,
)

ROWS = (
    PUT,
    PUT._replace(name="blobs: read it, verified, against a plain copy with sync", ours=read),
    PUT_INTO_BUCKET,
    PUT_INTO_BUCKET._replace(
        name="blobs: read it from there, verified, against nats-py's object store",
        ours=read_from_bucket,
        peer=read_by_nats,
    ),
)
