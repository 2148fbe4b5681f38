"""The PostgreSQL server that tests run on: one of this process's own, or that which the environment names."""

import atexit
import os
from functools import cache
from itertools import count
from urllib.parse import quote, urlencode

from requirements import without

from interpreters.stores.postgres.private_server import PrivateServer, binaries

GIVEN = "PERSIST_EFFECTS_POSTGRES_URL"
"""Names the server to use, as a URL without options."""

QUIET = {"autovacuum": "off"}
"""For the servers of tests: a transaction of the server's own holds back readers of all streams at any moment."""

_NUMBERS = count(1)


@cache
def _own() -> PrivateServer:
    server = PrivateServer(settings=QUIET)
    atexit.register(server.stop)
    return server


def own_server() -> PrivateServer:
    """The server of this test process, which is made once and stays."""
    if binaries() is None:
        without("there are no binaries of PostgreSQL: install its server")
    return _own()


def new_schema() -> str:
    """The name of a schema that nobody else has."""
    return f"test_{os.getpid()}_{next(_NUMBERS)}"


def new_store_url(**options: str) -> str:
    """The URL of a store in a schema that nobody else has."""
    given = os.environ.get(GIVEN)
    if given:
        return f"{given}?{urlencode({'schema': new_schema(), **options}, quote_via=quote)}"
    return own_server().url(new_schema(), **options)
