"""The whole conformance suite over each way to a server, and over connections that are cut or slow."""

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from fewer import FEWER
from lagging import LaggingMemoryStore
from served_stores import Ending, serving

from interpreters import Store, open_store
from interpreters.conformance import Capabilities, StoreConformance


@pytest.mark.exploration
class TestSpawnedStore(StoreConformance):
    """A process of one's own for each test, which all those below spare."""

    def open_store(self) -> Store:
        return open_store("spawn:memory:")


class _ServedConformance(StoreConformance):
    place = "unix"

    def new_inner(self, ends: ExitStack) -> Store:
        return ends.enter_context(open_store("memory:"))

    def open_store(self) -> Store:
        ends = ExitStack()
        inner = self.new_inner(ends)
        directory = tempfile.mkdtemp(prefix="persist-effects-")
        ends.callback(shutil.rmtree, directory)
        place = Path(directory) / "sock" if self.place == "unix" else "tcp://127.0.0.1:0"
        url = ends.enter_context(serving(inner, place))
        return Store(Ending(self.opened(url, ends).interpreter, ends))

    def opened(self, url: str, ends: ExitStack) -> Store:
        return open_store(url)


class TestStoreOverAUnixSocket(_ServedConformance):
    """Memory, all of whose rows are quick."""


@pytest.mark.exploration
class TestStoreOverTcp(_ServedConformance):
    """The same over TCP."""

    machine_settings = FEWER

    place = "tcp"


@pytest.mark.exploration
class TestServedLaggingStore(_ServedConformance):
    """Of a store whose order lags, and which is asked in threads."""

    machine_settings = FEWER

    capabilities = Capabilities(order_lags=True)

    def new_inner(self, ends: ExitStack) -> Store:
        return ends.enter_context(Store(LaggingMemoryStore()))


@pytest.mark.exploration
class TestServedSqliteStore(_ServedConformance):
    """Of a store that blocks, so that its writes go together and all else is asked in threads."""

    machine_settings = FEWER

    def new_inner(self, ends: ExitStack) -> Store:
        directory = tempfile.mkdtemp(prefix="persist-effects-")
        ends.callback(shutil.rmtree, directory)
        return ends.enter_context(open_store(f"sqlite:{directory}/app.db?sync=os"))

    # A file outlives its process, and this suite opens a new one each time.
    test_a_store_that_claims_to_outlive_its_process_can_be_reopened = None


@pytest.mark.exploration
class TestServedTwice(_ServedConformance):
    """Of a store that is a client itself, so that it takes what is submitted."""

    machine_settings = FEWER

    def opened(self, url: str, ends: ExitStack) -> Store:
        first = ends.enter_context(open_store(url))
        directory = tempfile.mkdtemp(prefix="persist-effects-")
        ends.callback(shutil.rmtree, directory)
        return open_store(ends.enter_context(serving(first, Path(directory) / "sock")))
