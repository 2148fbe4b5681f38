"""The whole conformance suite on NATS: one server, and three of which each has all."""

import pytest
from nats_cluster import BATCH_MESSAGES, new_store_url

from interpreters import Store, open_store
from interpreters.conformance import Capabilities, StoreConformance


class TestStoreOnOneServer(StoreConformance):
    """A store that nobody else uses."""

    capabilities = Capabilities(durability="os", processes="many", reopen=True, batch_limit=BATCH_MESSAGES // 2)
    size = 1

    def open_store(self) -> Store:
        return self.opened(new_store_url(self.size))

    def opened(self, url: str) -> Store:
        store = open_store(url)
        self.urls = {**getattr(self, "urls", {}), id(store): url}
        return store

    def reopen(self, store: Store) -> Store:
        store.close()
        return self.opened(self.urls[id(store)])

    @pytest.mark.exploration
    def test_the_store_agrees_with_the_model_over_any_sequence_of_requests(self) -> None:
        super().test_the_store_agrees_with_the_model_over_any_sequence_of_requests()


class TestStoreOnACluster(TestStoreOnOneServer):
    """The same where each write has to be at two of three."""

    size = 3
