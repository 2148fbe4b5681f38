"""The store on PostgreSQL: the whole conformance suite with reopening between steps, and what is its own."""

from typing import Any

from postgres_server import new_store_url

from interpreters import Store, open_store
from interpreters.conformance import Capabilities, StoreConformance


class TestPostgresStore(StoreConformance):
    capabilities = Capabilities(reopen=True, order_lags=True)

    def open_store(self) -> Store:
        return self._open(new_store_url(sync="interval"))

    def reopen(self, store: Store) -> Store:
        url = URLS[store.interpreter]
        store.close()
        return self._open(url)

    def _open(self, url: str) -> Store:
        store = open_store(url)
        URLS[store.interpreter] = url
        return store


URLS: dict[Any, str] = {}
