"""What the tests share."""

from collections.abc import Iterator

import pytest

from interpreters import Store, open_store


@pytest.fixture
def store() -> Iterator[Store]:
    """A new, empty store."""
    with open_store("memory:") as opened:
        yield opened
