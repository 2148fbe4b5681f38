"""The NATS servers that tests run on: one of this process's own, and three that are a cluster, each made once."""

import atexit
import os
from functools import cache
from itertools import count

from interpreters.nats.private_cluster import PrivateCluster

BATCH_MESSAGES = 20_000
"""As many as the longest append of the conformance suite takes, and more."""

_NUMBERS = count(1)


@cache
def own_cluster(size: int) -> PrivateCluster:
    """The servers of this test process."""
    cluster = PrivateCluster(size, batch_messages=BATCH_MESSAGES)
    atexit.register(cluster.stop)
    return cluster


def new_store_url(size: int = 1, **options: object) -> str:
    """The URL of a store that nobody else has."""
    given = {"replicas": size, "batch_messages": BATCH_MESSAGES, **options}
    return own_cluster(size).url(f"test-{os.getpid()}-{next(_NUMBERS)}", **given)


def new_bucket_url(size: int = 1, **options: object) -> str:
    """The URL of a home of blobs that nobody else has."""
    return own_cluster(size).url(f"blobs-{os.getpid()}-{next(_NUMBERS)}", **{"replicas": size, **options})
