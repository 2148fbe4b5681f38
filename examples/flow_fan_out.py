"""A thousand items at once, as one durable flow: the links of a site are checked, some answer late, some never.

Each link is a branch of the flow. What came of it is in the journal as soon as it is known; what came of many at one
time shares an entry. So where a process dies in the middle, the next one asks again only what was under way.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Struct

from interpreters import Store, open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import Effect, Retry, flow, kv

LINKS = [f"/page/{number}" for number in range(1000)]
ASKED: Counter[str] = Counter()


class Report(Struct, frozen=True):
    """What came of a site. The result of a flow has 256 KiB at the most, so it names only what is broken."""

    good: int
    broken: list[str]


# Outside


@flow.activity(retry=Retry(times=3, wait_seconds=0.01))
def fetch(link: str) -> int:
    """Ask for a page. Returns its status. This one answers as if some servers were tired and some pages gone."""
    ASKED[link] += 1
    number = int(link.rpartition("/")[2])
    if number % 250 == 249:
        raise ConnectionError(f"nobody answers for {link}")
    if number % 50 == 7 and ASKED[link] < 3:
        raise ConnectionError(f"{link} is too slow")
    return 404 if number % 300 == 299 else 200


ACTIVITIES: list[Callable[..., Any]] = [fetch]


# The flow


def check_site(site: str, links: list[str]) -> Effect[Report]:
    """Check all links of a site together, and keep the report under the site's name."""
    statuses = yield from flow.all_of(*(status_of(link) for link in links))
    broken = [f"{link}: {status}" for link, status in zip(links, statuses, strict=True) if status != "200"]
    report = Report(len(links) - len(broken), broken)
    yield from kv.put(f"reports/{site}", report)
    return report


def status_of(link: str) -> Effect[str]:
    """What came of one link. An error that is not caught here would cancel all the others."""
    try:
        return str((yield from flow.call(fetch, link)))
    except ConnectionError as error:
        return str(error)


# Around it


def host_of(store: Store, activities: Iterable[Callable[..., Any]] = ACTIVITIES) -> FlowHost:
    return FlowHost(store, flows=[check_site], activities=activities, activities_at_once=8)


def main(url: str = "memory:") -> None:
    with open_store(url) as store, host_of(store) as host:
        host.start(check_site, "check-1", "example.org", LINKS, tags={"site": "example.org"})
        report: Report = host.result("check-1", timeout=60)
        print(f"{report.good} links are good, {len(report.broken)} are broken:", *report.broken, sep="\n")
        again = sum(count - 1 for count in ASKED.values())
        print(f"asked again: {again} times")


if __name__ == "__main__":
    main(*sys.argv[1:])
