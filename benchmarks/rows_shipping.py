"""Shipping a file store to a directory, against a plain copy of its log whose files are each synced."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.appends import BATCH_SIZE
from benchmarks.built_stores import batches_store, single_appends_store
from benchmarks.ground import new_directory
from benchmarks.table import Bound, Row, seconds
from interpreters.stores.file.upkeep.shipping.running import ship


@contextmanager
def prepared_batches(count: int) -> Iterator[Path]:
    yield batches_store(count)


@contextmanager
def prepared_single_appends(count: int) -> Iterator[Path]:
    yield single_appends_store(count)


def shipped(store: Path) -> float:
    """Megabytes a second, into a target that has nothing yet."""
    with new_directory() as place:
        return _megabytes(store) / seconds(lambda: ship(store, str(place / "target"), once=True))


def copied(store: Path) -> float:
    """Megabytes a second."""
    with new_directory() as place:
        return _megabytes(store) / seconds(lambda: _copy_and_sync(store / "log", place))


def _copy_and_sync(log: Path, place: Path) -> None:
    for segment in log.glob("*.seg"):
        copy = shutil.copyfile(segment, place / segment.name)
        descriptor = os.open(copy, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _megabytes(store: Path) -> float:
    return sum(segment.stat().st_size for segment in (store / "log").glob("*.seg")) / 1e6


IN_BATCHES = Row(
    name=f"file: ship 1,000,000 events, {BATCH_SIZE} in a commit, against a copy with syncs",
    unit="MB/s",
    bound=Bound.AT_LEAST,
    must=0.05,
    operations=1_000_000,
    prepare=prepared_batches,
    ours=shipped,
    peer=copied,
    rounds=5,
)

ROWS = (
    IN_BATCHES,
    IN_BATCHES._replace(
        name="file: ship 1,000,000 events, each a commit, against a copy with syncs",
        must=0.02,
        prepare=prepared_single_appends,
    ),
)
