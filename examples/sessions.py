"""Sessions that expire, as keys with a time in their values, and a sweep. Nothing vanishes by itself: this is no cache.

Three rules make it right. Who reads compares the time with `now`, so that a session is over when it says so, whenever
the sweep comes by. Who renews, and the sweep, expect the revision that they have read, so that of a renewal and a
sweep at one moment exactly one counts. And the sweep goes on page by page, so it holds a page in memory, however many
sessions there are. Everything above `main` is pure.
"""

import sys
from typing import Any

from interpreters import open_store
from persist_effects import Conflict, Effect, Entry, kv, new_id, now, perform, sleep
from persist_effects.requests import PAGE_SIZE, KvEntries

PREFIX = "sessions/"
LIFE_SECONDS = 30 * 60
SWEEP_SECONDS = 5 * 60

Session = dict[str, Any]
"""``user``, and ``expires``: the first moment at which it is over, in microseconds since 1970, UTC."""


def expiry(moment: int) -> int:
    return moment + LIFE_SECONDS * 1_000_000


def is_over(session: Session, moment: int) -> bool:
    return bool(session["expires"] <= moment)


def log_in(user: str) -> Effect[str]:
    """Begin a session, and return the name by which it is known."""
    name = yield from new_id()
    yield from kv.put(PREFIX + name, {"user": user, "expires": expiry((yield from now()))})
    return name


def user_of(name: str) -> Effect[str | None]:
    """Whose session this is, None where there is none, or not any more."""
    found = yield from alive(name)
    return None if found is None else found.value["user"]


def renew(name: str) -> Effect[bool]:
    """Let a session last from now on as long as a new one. Returns whether it was there still."""
    while True:
        found = yield from alive(name)
        if found is None:
            return False
        renewed = {**found.value, "expires": expiry((yield from now()))}
        if not isinstance((yield from kv.put_expect(PREFIX + name, found.revision, renewed)), Conflict):
            return True


def log_out(name: str) -> Effect[bool]:
    """End a session. Returns whether it was there."""
    return (yield from kv.delete(PREFIX + name))


def alive(name: str) -> Effect[Entry | None]:
    found = yield from kv.entry(PREFIX + name)
    return None if found is None or is_over(found.value, (yield from now())) else found


def sweep() -> Effect[int]:
    """Delete the sessions that are over, and return how many. Any number of processes may do so at once."""
    count, after = 0, ""
    while True:
        page = yield from perform(KvEntries(PREFIX, after))
        moment = yield from now()
        for key, found in page:
            if is_over(found.value, moment):
                # One that was renewed since is of a later revision, and stays.
                count += (yield from kv.delete_expect(key, found.revision)) is True
        if len(page) < PAGE_SIZE:
            return count
        after = page[-1][0]


def keep_sweeping() -> Effect[None]:
    """Sweep now and then, until the store is closed."""
    while True:
        yield from sweep()
        yield from sleep(SWEEP_SECONDS)


def visit() -> Effect[list[str]]:
    """Somebody comes, is known, and leaves."""
    name = yield from log_in("ada")
    lines = [f"logged in: {(yield from user_of(name))}", f"renewed: {(yield from renew(name))}"]
    lines += [f"swept: {(yield from sweep())}", f"logged out: {(yield from log_out(name))}"]
    return [*lines, f"then: {(yield from user_of(name))}", f"renewed: {(yield from renew(name))}"]


def main(url: str = "memory:") -> None:
    with open_store(url) as store:
        print(*store.run(visit()), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
