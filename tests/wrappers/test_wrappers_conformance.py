"""The whole suite, through wrappers around stores of every kind."""

from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import nats_cluster
import postgres_server
import pytest
from fewer import FEWER
from hypothesis import settings
from served_stores import Ending, serving

from interpreters import Store, open_store
from interpreters.conformance import Capabilities, StoreConformance
from interpreters.stores.memory import MemoryStore
from interpreters.wrappers import Around, Retrying, budget, telemetry, wrapped

DURABLE = Capabilities(reopen=True)
WRAPPERS = (budget(appends=10**9, commits=10**9), telemetry, Retrying, Around)
"""Next to the store, the one that refuses. All that is asked goes through all of them."""


class _OfUrl(StoreConformance):
    def opened(self, url: str) -> Store:
        store = wrapped(open_store(url), *WRAPPERS)
        store.url = url  # type: ignore[attr-defined]
        return store

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.opened(store.url)  # type: ignore[attr-defined]


class _Durable(_OfUrl):
    machine_settings = FEWER
    capabilities = DURABLE
    scheme = ""

    @pytest.fixture(autouse=True)
    def _in_a_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path
        self.numbers = count()

    def open_store(self) -> Store:
        return self.opened(f"{self.scheme}:{self.directory}/store{next(self.numbers)}?sync=os")


class TestWrappedFile(_Durable):
    scheme = "file"


@pytest.mark.exploration
class TestWrappedSqlite(_Durable):
    capabilities = msgspec.structs.replace(DURABLE, sql="sqlite")
    scheme = "sqlite"


class TestWrappedMemory(StoreConformance):
    capabilities = DURABLE

    def open_store(self) -> Store:
        return self.around(MemoryStore())

    def around(self, inner: MemoryStore) -> Store:
        store = wrapped(Store(inner), *WRAPPERS)
        store.innermost = inner  # type: ignore[attr-defined]
        return store

    def reopen(self, store: Any) -> Store:
        # A memory store lives until it is closed, so another one is opened beside this one.
        return self.around(store.innermost)


@pytest.mark.exploration
class TestWrappedServed(StoreConformance):
    """The store inside is served, and takes what is submitted to it."""

    machine_settings = FEWER

    def open_store(self) -> Store:
        with ExitStack() as ends:
            place = Path(ends.enter_context(TemporaryDirectory(prefix="persist-effects-")))
            url = ends.enter_context(serving(ends.enter_context(open_store("memory:")), place / "sock"))
            opened = wrapped(open_store(url), *WRAPPERS)
            return Store(Ending(opened.interpreter, ends.pop_all()))


@pytest.mark.exploration
class TestWrappedPostgres(_OfUrl):
    machine_settings = settings(FEWER, max_examples=10)
    capabilities = msgspec.structs.replace(DURABLE, order_lags=True, sql="postgresql")

    def open_store(self) -> Store:
        return self.opened(postgres_server.new_store_url(sync="interval"))


@pytest.mark.exploration
class TestWrappedNats(TestWrappedPostgres):
    capabilities = msgspec.structs.replace(
        DURABLE, durability="os", processes="many", batch_limit=nats_cluster.BATCH_MESSAGES // 2
    )

    def open_store(self) -> Store:
        return self.opened(nats_cluster.new_store_url(1))
