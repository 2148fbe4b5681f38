"""A member of a group that waits inside of its handler: `python fence_child.py URL MEMBER FENCE`.

It writes a line to its stdout once its handler has an event, and goes on when there is a line in its stdin. With
``FENCE`` as "without" it writes whoever has its partition meanwhile, as a follower would that keeps no fence.
"""

import sys
from typing import Any

import msgspec
from fenced import followed_as

from interpreters import open_store
from persist_effects import Event
from persist_effects.following.checkpoint import Checkpoint
from persist_effects.following.records import plain
from persist_effects.machine import Effect, perform
from persist_effects.requests import KvPut, Transact, Write


def main() -> None:
    url, member, fence = sys.argv[1:]
    if fence == "without":
        Checkpoint.advance = moved_whoever_has_moved_it  # type: ignore[method-assign]
    with open_store(url) as store:
        store.run(followed_as(member, wait_inside))


def wait_inside(event: Event) -> None:
    print(event.stream, event.seq, flush=True)
    sys.stdin.readline()


def moved_whoever_has_moved_it(
    self: Checkpoint[Any], position: int, writes: tuple[Write, ...] = (), **changes: Any
) -> Effect[Any]:
    record = msgspec.structs.replace(self.record, position=position, **changes)
    answers = yield from perform(Transact((KvPut(self.key, plain(record)), *writes)))
    self.position, self.revision = position, answers[0]
    self._keep(record)
    return answers


if __name__ == "__main__":
    main()
