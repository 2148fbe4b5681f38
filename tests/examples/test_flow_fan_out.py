"""The example `examples/flow_fan_out.py`: a thousand branches, of which some fail, and a restart among them."""

import subprocess
import sys
from collections import Counter

import pytest
from held_activities import HeldActivity, counted
from places import EXAMPLES

from interpreters import open_store
from interpreters.runtime.flows import FlowHost
from persist_effects import flow, kv, log
from persist_effects.errors import FlowFailed
from persist_effects.flow import journal

sys.path.insert(0, str(EXAMPLES))

import flow_fan_out
from flow_fan_out import LINKS, Report

URLS = ["memory:", "file:{}/store"]
BROKEN = [
    "/page/249: nobody answers for /page/249",
    "/page/299: 404",
    "/page/499: nobody answers for /page/499",
    "/page/599: 404",
    "/page/749: nobody answers for /page/749",
    "/page/899: 404",
    "/page/999: nobody answers for /page/999",
]
TRANSCRIPT = "\n".join(["993 links are good, 7 are broken:", *BROKEN, "asked again: 52 times\n"])


@pytest.fixture(params=URLS)
def url(request, tmp_path):
    return request.param.format(tmp_path)


@pytest.fixture(autouse=True)
def _nobody_was_asked():
    flow_fan_out.ASKED.clear()


def test_it_prints_this(url, capsys):
    flow_fan_out.main(url)
    assert capsys.readouterr().out == TRANSCRIPT


def test_a_user_starts_it_from_the_command_line_and_the_second_time_no_link_is_asked_for(tmp_path):
    command = [sys.executable, EXAMPLES / "flow_fan_out.py", f"file:{tmp_path}/store"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout for _ in range(2)
    )
    assert first == TRANSCRIPT
    assert second == TRANSCRIPT.replace("again: 52", "again: 0")


def test_the_report_is_kept_and_each_link_that_fails_is_tried_as_often_as_it_is_said(url):
    with open_store(url) as store, flow_fan_out.host_of(store) as host:
        host.start(flow_fan_out.check_site, "check-1", "example.org", LINKS)
        assert host.result("check-1", timeout=60) == Report(993, BROKEN)
        assert store.run(kv.get("reports/example.org")) == {"good": 993, "broken": BROKEN}
    # Four of a thousand links never answer, twenty only the third time.
    assert Counter(flow_fan_out.ASKED.values()) == {1: 976, 3: 20, 4: 4}


def test_a_host_that_stopped_midway_is_followed_by_one_that_asks_only_for_what_is_not_known(tmp_path):
    url, asked = f"file:{tmp_path}/store", []
    early, late = LINKS[:700], LINKS[700:]
    slow = {link for link in early if int(link.removeprefix("/page/")) % 50 == 7 or link in {"/page/249", "/page/499"}}
    with HeldActivity(flow_fan_out.fetch, lambda link: link in late) as held:
        with open_store(url) as store, flow_fan_out.host_of(store, [held.activity]) as host:
            host.start(flow_fan_out.check_site, "check-1", "example.org", LINKS)
            store.run(known_are(len(early) - len(slow)))
        with open_store(url) as store, flow_fan_out.host_of(store, [counted(flow_fan_out.fetch, asked)]) as host:
            assert host.result("check-1", timeout=60) == Report(993, BROKEN)
    links = {link for (link,) in asked}
    assert links >= set(late)
    assert links & set(early) <= slow


def known_are(count):
    """Wait until the journal knows what came of so many links."""
    seen = 0
    while True:
        entries = yield from log.read(journal.journal_of("check-1"))
        if (
            sum(len(journal.decode_steps(each.data["steps"])) for each in entries if each.type == journal.STEPS)
            >= count
        ):
            return
        before, seen = seen, (yield from log.wait(seen, journal.journal_of("check-1"), timeout=60))
        assert seen > before, "nothing was known for a minute"


def test_a_link_whose_error_is_not_caught_cancels_the_others_and_fails_the_flow(store):
    def careless(links):
        yield from flow.all_of(*(flow.call(flow_fan_out.fetch, link) for link in links), flow.signal("never"))

    with FlowHost(store, flows=[careless], activities=[flow_fan_out.fetch]) as host:
        host.start(careless, "check-1", ["/page/1", "/page/249"])
        with pytest.raises(FlowFailed, match="ConnectionError: nobody answers for /page/249"):
            host.result("check-1", timeout=60)
