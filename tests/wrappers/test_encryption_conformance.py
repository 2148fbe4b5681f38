"""The whole suite, through encryption around stores of every kind."""

from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
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
from interpreters.wrappers.encryption import Encrypted, open_encrypted
from interpreters.wrappers.encryption.envelope import OVERHEAD_BYTES
from persist_effects.codec import PAYLOAD_LIMIT_BYTES

CLAIMED = Capabilities(reopen=True, payload_limit_bytes=PAYLOAD_LIMIT_BYTES - OVERHEAD_BYTES)


def everything_is_of_its_own(name: str) -> str:
    """Each stream and each key is about somebody else: as many keys as can be."""
    return name


def only_some(name: str) -> str | None:
    """Half of them are about somebody, the rest stands in the clear."""
    return "somebody" if len(name) % 2 else None


class _Durable(StoreConformance):
    """A store that outlives its process, its keys in a store of their own."""

    machine_settings = FEWER

    capabilities = CLAIMED
    scheme = ""
    subject_of: Callable[[str], str | None] = staticmethod(everything_is_of_its_own)

    @pytest.fixture(autouse=True)
    def _in_a_directory(self, tmp_path: Path) -> None:
        self.directory = tmp_path
        self.numbers = count()

    def open_store(self) -> Store:
        where = mkdtemp(dir=self.directory)
        return self.opened(where)

    def opened(self, where: str) -> Store:
        store = open_encrypted(
            f"{self.scheme}:{where}/store?sync=os",
            keys=f"{self.scheme}:{where}/keys?sync=os",
            subject_of=type(self).subject_of,
        )
        store.where = where  # type: ignore[attr-defined]
        return store

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.opened(store.where)  # type: ignore[attr-defined]


class TestEncryptedFile(_Durable):
    scheme = "file"


@pytest.mark.exploration
class TestEncryptedSqlite(_Durable):
    capabilities = msgspec.structs.replace(_Durable.capabilities, sql="sqlite")
    scheme = "sqlite"


@pytest.mark.exploration
class TestHalfEncryptedFile(_Durable):
    scheme = "file"
    subject_of = staticmethod(only_some)


class TestEncryptedMemory(StoreConformance):
    capabilities = CLAIMED

    def open_store(self) -> Store:
        keys = MemoryStore()
        store = Store(Encrypted(MemoryStore(), keys, subject_of=everything_is_of_its_own))
        store.keys = keys  # type: ignore[attr-defined]
        return store

    def reopen(self, store: Any) -> Store:
        # A memory store lives until it is closed, so another one is opened beside this one.
        inner = store.interpreter.inner
        again: Any = Store(Encrypted(inner, store.keys, subject_of=everything_is_of_its_own))
        again.keys = store.keys
        return again


@pytest.mark.exploration
class TestEncryptedServed(StoreConformance):
    """The store inside is served, and takes what is submitted to it."""

    capabilities = Capabilities(payload_limit_bytes=PAYLOAD_LIMIT_BYTES - OVERHEAD_BYTES)
    machine_settings = FEWER

    def open_store(self) -> Store:
        with ExitStack() as ends:
            place = Path(ends.enter_context(TemporaryDirectory(prefix="persist-effects-")))
            url = ends.enter_context(serving(ends.enter_context(open_store("memory:")), place / "sock"))
            opened = open_encrypted(url, keys=open_store("memory:"), subject_of=everything_is_of_its_own)
            return Store(Ending(opened.interpreter, ends.pop_all()))


@pytest.mark.exploration
class _AtAServer(StoreConformance):
    """A store at a server."""

    machine_settings = settings(FEWER, max_examples=10)

    def new_url(self) -> str:
        raise NotImplementedError

    def new_keys(self) -> Store | str:
        raise NotImplementedError

    def open_store(self) -> Store:
        return self.opened(self.new_url(), self.new_keys())

    def opened(self, url: str, keys: Store | str) -> Store:
        store = open_encrypted(url, keys=keys, subject_of=only_some)
        store.places = url, keys  # type: ignore[attr-defined]
        return store

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.opened(*store.places)  # type: ignore[attr-defined]


@pytest.mark.exploration
class TestEncryptedPostgres(_AtAServer):
    """Its keys elsewhere: in the same database they would lie in each of its backups."""

    capabilities = msgspec.structs.replace(CLAIMED, order_lags=True, sql="postgresql")

    def new_url(self) -> str:
        return postgres_server.new_store_url(sync="interval")

    def new_keys(self) -> Store:
        return open_store("memory:")


@pytest.mark.exploration
class TestEncryptedNats(_AtAServer):
    """Its keys in another store of the same kind."""

    capabilities = msgspec.structs.replace(
        CLAIMED, durability="os", processes="many", batch_limit=nats_cluster.BATCH_MESSAGES // 2
    )

    def new_url(self) -> str:
        return nats_cluster.new_store_url(1)

    def new_keys(self) -> str:
        return self.new_url()
