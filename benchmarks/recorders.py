"""The recorders of ``eventsourcing``, of whichever database, doing with the same events what the stores do."""

import msgspec
from eventsourcing.persistence import ApplicationRecorder, StoredEvent

from benchmarks.appends import STREAM_COUNT, Appends
from benchmarks.table import rate
from interpreters.runtime.store import Store
from persist_effects import log

BATCH = 100
"""How many events are one commit."""

_PAGE = 256
_encode = msgspec.msgpack.Encoder().encode


def stored(appends: Appends, number: int) -> StoredEvent:
    """One of the events, as a recorder keeps it."""
    version = number // STREAM_COUNT + 1
    return StoredEvent(appends.ids[number % STREAM_COUNT], version, "placed", _encode(appends.orders[number]))


def insert_in_batches(made: ApplicationRecorder, appends: Appends) -> None:
    """All of them, some of a stream in each commit."""
    for start in range(0, len(appends.orders), BATCH):
        originator = appends.ids[start // BATCH % STREAM_COUNT]
        first = start // BATCH // STREAM_COUNT * BATCH + 1
        batch = [
            StoredEvent(originator, first + index, "placed", _encode(placed))
            for index, placed in enumerate(appends.orders[start : start + BATCH])
        ]
        made.insert_events(batch)


def read_all_of_store(store: Store, count: int) -> float:
    """How many events a second a store reads, page by page. No page is kept."""

    def read() -> None:
        found = position = 0
        is_over = False
        while not is_over:
            page = store.run(log.page_all(after=position, limit=_PAGE))
            found += len(page.events)
            position, is_over = page.next, page.next >= page.head
        assert found == count, f"{found}, not {count}"

    return rate(count, read)


def read_all(made: ApplicationRecorder, count: int) -> float:
    """How many events a second a recorder reads, page by page, and how many are decoded. No page is kept."""
    decode = msgspec.msgpack.Decoder().decode

    def read() -> None:
        found, start = 0, 1
        while page := made.select_notifications(start, _PAGE):
            found += len([decode(notification.state) for notification in page])
            start = page[-1].id + 1
        assert found == count, f"{found}, not {count}"

    return rate(count, read)
