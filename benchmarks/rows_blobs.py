"""A directory of blobs, against a plain copy with sync of the same file."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

from benchmarks.ground import new_directory
from benchmarks.table import Bound, Row, rate
from interpreters.blobs.directory import DirectoryBlobs
from interpreters.blobs.homes import read_through
from interpreters.disk.files import open_to_read

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

ROWS = (
    PUT,
    PUT._replace(name="blobs: read it, verified, against a plain copy with sync", ours=read),
)
