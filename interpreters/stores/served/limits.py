"""What a server gives its clients at the most, so that none of them takes it from the others."""

import msgspec

from persist_effects.errors import InvalidRequest, describe
from persist_effects.event import check_integer

MEBIBYTE = 1024 * 1024


class ServingLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of a server, each of which is an option of ``persist-effects serve``.

    Args:
        max_connections: How many clients there may be. One more is told so, and closed.
        max_waits: How many waits of one connection may go on at once. One more is refused.
        frame_bytes: How long a client's frame may be; who announces a longer one is dropped.
        queue_bytes: How many bytes of requests that are not answered, and of answers that are not read, a connection
            may have. Beyond that nothing more is read from it until there is room again.
        hello_seconds: How long a client may take to say hello.
        frame_seconds: How long a frame that was begun may take to end.
        stalled_seconds: How long a client whose answers fill the queue may take to read some of them.
        drain_seconds: How long a server that was told to end waits for what it is doing.

    Raises:
        InvalidRequest: If one of them makes no sense.

    >>> ServingLimits(max_waits=5).max_waits
    5
    """

    max_connections: int = 1_000
    max_waits: int = 10_000
    frame_bytes: int = 256 * MEBIBYTE
    queue_bytes: int = 16 * MEBIBYTE
    hello_seconds: float = 10.0
    frame_seconds: float = 60.0
    stalled_seconds: float = 60.0
    drain_seconds: float = 10.0

    def __post_init__(self) -> None:
        for name in ("max_connections", "max_waits", "frame_bytes", "queue_bytes"):
            check_integer(name, getattr(self, name), 1)
        for name in ("hello_seconds", "frame_seconds", "stalled_seconds", "drain_seconds"):
            value = getattr(self, name)
            if type(value) not in (int, float) or not 0 < value < float("inf"):
                raise InvalidRequest(f"{name} is {describe(value)}: give a number of seconds over 0")
