"""What an exploration of crashes reports: verdicts, the text, the table for terminals, the page."""

import ast
import io
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from places import ROOT
from rich.console import Console

from interpreters.explore.report import NO_VERDICT, Failure, FaultCount, Report
from persist_effects import InvalidRequest

VOID = {"meta"}
HOSTILE = '<script>alert(\'x\')</script> & " onclick="x" [bold]\x1b[31m\u202e\ud800'
HOSTILE_SHOWN = '<script>alert(\'x\')</script> & " onclick="x" [bold]\\x1b[31m\\u202e\\ud800'


def failure(kind="acknowledged write lost", **changes):
    fields = {
        "expected": "orders/1 has 3 events",
        "found": "orders/1 has 2 events",
        "crash": "before request 14 of 40, disk/sync-directory log",
        "survivors": ("lost: disk/create log/00000001.seg", "torn: disk/write log/00000001.seg, 512 of 1,024 bytes"),
        "trace": ("#12 disk/write log/00000001.seg", "#13 disk/sync log/00000001.seg", "  ✗ crash", "#14 not reached"),
        "token": "v1-13-lost.4",
        "remedy": "passes if the directory is synced after request 13",
    }
    return Failure(kind, **{**fields, **changes})


def explored(**changes):
    fields = {
        "enumerated": 1234567,
        "equal": 1230000,
        "checked": 4567,
        "bound": "every request, at most 2 faults",
        "cells": [
            FaultCount("#13 disk/sync log/00000001.seg", "crash before", 1200, 0),
            FaultCount("#2 disk/create log/00000001.seg", "torn", 14, 2),
            FaultCount("#13 disk/sync log/00000001.seg", "lost", 3, 0),
        ],
    }
    return Report("orders", "posix", depth=2, **{**fields, **changes})


def large():
    cells = [
        FaultCount(f"#{row} persist/append orders/{row}", f"fault {column}", row * column, int(row == column == 7))
        for row in range(200)
        for column in range(15)
    ]
    return explored(cells=cells, failures=[failure()])


def long_failure(**changes):
    many = tuple(f"lost: disk/write log/{number}" for number in range(30))
    trace = tuple("  ✗ the power fails" if step == 700 else f"#{step} disk/write log" for step in range(1, 1001))
    long = {"expected": "one\n" * 60, "found": "two\n" * 60, "crash": "three\n" * 60, "remedy": "four\n" * 60}
    return failure(**{**long, "survivors": many, "trace": trace, "passes": many, **changes})


def printed(report, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(report.table())
    return console.file.getvalue()


class Page(HTMLParser):
    """A page that was read with care: each tag closed in its order, and every attribute known."""

    def __init__(self, page):
        super().__init__()
        self.open = []
        self.tags = []
        self.titles = []
        self.texts = []
        self.heads = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.titles += [value for name, value in attributes if name == "title"]
        assert {name for name, _ in attributes} <= {
            "lang",
            "charset",
            "name",
            "content",
            "class",
            "scope",
            "title",
            "tabindex",
        }
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if "style" not in self.open:
            self.texts.append(text)
        if self.open[-2:] == ["tr", "th"]:
            self.heads.append(text)

    @property
    def text(self):
        return "".join(self.texts)

    def of_class(self, name):
        return [attributes for tag, attributes in self.tags if tag == "td" and attributes.get("class") == name]


# The verdict


def test_a_report_without_failures_passed():
    assert explored(cells=[]).verdict == "passed"


def test_where_nothing_was_checked_nothing_passed():
    assert explored(cells=[], checked=0).verdict == "nothing was checked"


@pytest.mark.parametrize("checked", [0, 4567])
def test_a_failure_is_never_passed_over(checked):
    assert explored(cells=[], checked=checked, failures=[failure()]).verdict == "failed"
    assert explored(cells=[], checked=checked, failures=[failure("a kind of its own")]).verdict == "failed"


def test_a_failure_that_is_only_counted_fails_as_well():
    assert explored().verdict == "failed"
    assert explored().failure_count == 2


@pytest.mark.parametrize("kind", NO_VERDICT)
def test_a_workload_of_which_nothing_can_be_said_gets_that_for_a_verdict(kind):
    assert explored(failures=[failure(kind)]).verdict == kind
    assert explored(checked=0, cells=[], failures=[failure(kind)]).verdict == kind


def test_a_state_that_failed_weighs_more_than_one_without_a_verdict():
    assert explored(failures=[failure("raises"), failure("invariant")]).verdict == "failed"


def test_two_reports_do_not_share_their_lists():
    first, second = Report("a", "posix", 1), Report("b", "posix", 1)
    first.failures.append(failure())
    assert second.failures == []


# The text


def test_a_report_prints_its_counts_its_heat_and_each_failure_in_full():
    assert str(explored(failures=[failure()])) == (
        """\
orders, posix, depth 2: failed

  enumerated  1,234,567
  equal       1,230,000  to a state that was checked
  checked         4,567
  failures            2  1 told below

  exhaustive within the bound: every request, at most 2 faults

states checked of each fault at each request; ✗2/14: 2 of 14 failed

                                 crash before
                                 │      torn
                                 │      │      lost
#13 disk/sync log/00000001.seg   1,200      ·  3
#2 disk/create log/00000001.seg      ·  ✗2/14  ·

failure 1 of 1: acknowledged write lost

  expected   orders/1 has 3 events
  found      orders/1 has 2 events
  crash      before request 14 of 40, disk/sync-directory log
  survivors  lost: disk/create log/00000001.seg
             torn: disk/write log/00000001.seg, 512 of 1,024 bytes
  trace
    #12 disk/write log/00000001.seg
    #13 disk/sync log/00000001.seg
      ✗ crash
    #14 not reached
  remedy     passes if the directory is synced after request 13

To see it again:
explore_crashes(workload, check, repro="v1-13-lost.4")"""
    )


def test_a_sample_says_that_it_is_one_and_its_seed():
    text = str(explored(is_exhaustive=False, seed=7))
    assert "sampled, seed 7: every request, at most 2 faults" in text
    assert "exhaustive" not in text


def test_what_is_not_known_of_a_failure_is_left_out():
    bare = failure("raises", found="", survivors=(), trace=(), remedy=None)
    report = explored(failures=[bare])
    for text in (str(report), Page(report.to_html()).text):
        told = text.lower().partition("failure 1")[2]
        assert "expected" in told
        assert not any(label in told for label in ("found", "survivors", "trace", "remedy"))


def test_a_failure_of_effects_is_replayed_by_another_line():
    text = str(Report("orders", "effects", 1, failures=[failure()]))
    assert text.splitlines()[-1] == 'explore_effects(program, store_factory, check, repro="v1-13-lost.4")'


@pytest.mark.parametrize("token", ["v1:a/b+c=", 'a "quoted" \\ one', "Zürich 🎈\n\x1b\u202e\ud800"])
def test_the_line_to_paste_gives_the_token_back(token):
    line = str(explored(failures=[failure(token=token)])).splitlines()[-1]
    call = ast.parse(line, mode="eval").body
    assert ast.literal_eval(call.keywords[0].value) == token
    assert line.isascii()


def test_lines_of_a_value_stay_under_their_label():
    text = str(explored(failures=[failure(expected="one\ntwo")]))
    assert "  expected   one\n             two\n  found " in text


def test_a_label_that_would_push_the_counts_away_is_shortened_in_the_text_only():
    request = "#1 persist/append " + "x" * 400 + "/end"
    report = explored(cells=[FaultCount(request, "lost", 5, 0)])
    assert max(map(len, str(report).splitlines())) <= 80
    assert "#1 persist/append xx" in str(report)
    assert "xx/end  5" in str(report)
    assert request in Page(report.to_html()).heads


def test_cells_of_one_place_are_added_up():
    cells = [FaultCount("#1", "lost", 3, 1), FaultCount("#1", "lost", 4, 1)]
    assert "#1  ✗2/7" in str(explored(cells=cells))
    assert len(Page(explored(cells=cells).to_html()).of_class("fail")) == 1


def test_text_does_not_obey_what_is_in_it():
    report = Report(HOSTILE, "posix", 1, cells=[FaultCount(HOSTILE, HOSTILE, 1, 1)], failures=[hostile_failure()])
    text = str(report)
    assert text.replace("\n", "").isprintable()
    assert HOSTILE_SHOWN in text


# Its length


@pytest.mark.parametrize("others", [0, 1, 6, 7, 40])
@pytest.mark.parametrize("is_long", [False, True])
@pytest.mark.parametrize("not_reached", ["", "orders that begin with b"])
@pytest.mark.parametrize("cells", [[], explored().cells, large().cells])
def test_a_report_is_told_in_less_than_forty_lines(others, is_long, not_reached, cells):
    failures = [long_failure() if is_long else failure(), *(failure(token=f"v1-{n}") for n in range(others))]
    text = str(explored(cells=cells, failures=failures, not_reached=not_reached))
    assert len(text.splitlines()) < 40, text
    assert "acknowledged write lost" in text
    assert 'explore_crashes(workload, check, repro="v1-13-lost.4")' in text.splitlines()


def test_a_report_without_failures_is_told_in_less_than_forty_lines():
    text = str(explored(cells=large().cells)).splitlines()
    assert len(text) == 39
    assert "#7 persist/append orders/7" in "\n".join(text)


def test_of_a_long_trace_the_beginning_the_crash_and_the_end_are_told():
    text = str(explored(cells=[], failures=[failure(trace=long_failure().trace)]))
    told = text.partition("  trace\n")[2].partition("  remedy")[0].splitlines()
    assert told[0] == "    #1 disk/write log"
    assert told[-1] == "    #1000 disk/write log"
    place = told.index("      ✗ the power fails")
    before, after = (int(told[near].split()[1].replace(",", "")) for near in (place - 1, place + 1))
    assert before + after + len(told) - 2 == 1000


def test_a_long_failure_says_what_tells_it_in_full():
    report = explored(failures=[failure(), long_failure()])
    assert "all of it" not in str(report)
    report = explored(failures=[long_failure(), failure()])
    assert "failure 1 of 2: acknowledged write lost; all of it: report.failure_text(1)" in str(report).splitlines()
    text = report.failure_text(1)
    assert all(line in text for line in (*long_failure().trace, *long_failure().survivors))
    assert text.count("two\n") == 60
    assert report.failure_text(2).startswith("failure 2 of 2: acknowledged write lost\n")


def test_each_failure_after_the_first_is_a_line_with_its_token():
    failures = [failure(), *(failure(kind=f"kind {number}", token=f"v1-{number}") for number in range(2, 20))]
    text = str(explored(failures=failures)).splitlines()
    assert [line for line in text if line.startswith("  2 ")] == [
        '  2  kind 2: orders/1 has 2 events  repro="v1-2"',
    ]
    assert text[-1] == "  … 13 more"
    assert str(explored(failures=failures[:3])).splitlines()[-1].endswith('  repro="v1-3"')


@pytest.mark.parametrize(("count", "number"), [(0, 1), (2, 0), (2, 3), (2, -1)])
def test_a_failure_that_is_not_there_is_refused(count, number):
    with pytest.raises(InvalidRequest, match=r"number|tells none"):
        explored(failures=[failure()] * count).failure_text(number)


# Terminals


@pytest.mark.parametrize("width", [20, 80, 400])
def test_the_table_has_every_figure_at_any_width(width):
    everything = "".join(printed(explored(failures=[failure()]), width).split())
    for text in ("1,234,567", "acknowledgedwritelost", 'repro="v1-13-lost.4")'):
        assert text in everything


def test_the_table_leaves_nothing_out_on_a_wide_terminal():
    text = printed(large(), 400)
    assert "#199 persist/append orders/199" in text
    assert "✗1/49" in text
    assert "2,786" in text


def test_many_faults_stand_in_several_tables_rather_than_a_letter_to_a_line():
    rows = [line.split() for line in printed(large(), 80).splitlines() if "#14 persist/append orders/14 " in line]
    assert [int(figure) for row in rows for figure in row[3:]] == [14 * column for column in range(15)]
    assert len(rows) == 4


def test_the_table_shows_what_is_in_it_and_obeys_nothing():
    report = Report(HOSTILE, "posix", 1, cells=[FaultCount(HOSTILE, HOSTILE, 1, 1)], failures=[hostile_failure()])
    text = printed(report, 1000)
    assert "\x1b" not in text
    assert text.count(HOSTILE_SHOWN) >= 4


def test_failures_are_red_on_a_terminal_with_colors():
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="standard", no_color=False)
    console.print(explored().table())
    assert "\x1b[1;31m✗2/14" in console.file.getvalue()


def test_without_rich_the_text_and_the_page_are_there_and_the_table_says_what_it_needs():
    code = (
        "import sys\n"
        "sys.modules['rich'] = None\n"
        "from interpreters.explore.report import Report\n"
        "from persist_effects import InvalidRequest\n"
        "report = Report('orders', 'posix', 1, checked=7)\n"
        "assert 'passed' in str(report) and 'passed' in report.to_html()\n"
        "try: report.table()\n"
        "except InvalidRequest as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "`Report.table` needs the package rich: pip install rich\n"


# The page


def test_the_page_is_whole_and_needs_nothing_else():
    page = large().to_html()
    read = Page(page)
    assert "http" not in page
    assert "url(" not in page
    assert "@import" not in page
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "link", "img", "iframe", "object", "a"})


def test_the_page_has_a_row_for_each_request_and_a_column_for_each_fault_as_they_appear():
    heads = [
        head
        for head in Page(explored().to_html()).heads
        if head.startswith("#") or head in ("crash before", "torn", "lost")
    ]
    assert heads == [
        "crash before",
        "torn",
        "lost",
        "#13 disk/sync log/00000001.seg",
        "#2 disk/create log/00000001.seg",
    ]
    assert len(Page(large().to_html()).titles) == 200 + 200 * 15


def test_the_page_marks_what_failed_and_colors_the_rest_by_its_states():
    page = Page(explored().to_html())
    assert [cell["title"] for cell in page.of_class("fail")] == [
        "#2 disk/create log/00000001.seg, torn: 14 states, 2 failures"
    ]
    assert [cell["title"] for cell in page.of_class("h6")] == [
        "#13 disk/sync log/00000001.seg, crash before: 1,200 states, 0 failures"
    ]
    assert len(page.of_class("h1")) == 1


@pytest.mark.parametrize(
    ("states", "level"),
    [
        (0, 0),
        (1, 1),
        (3, 1),
        (4, 2),
        (15, 2),
        (16, 3),
        (63, 3),
        (64, 4),
        (255, 4),
        (256, 5),
        (1023, 5),
        (1024, 6),
        (9**9, 6),
    ],
)
def test_a_color_stands_for_the_states_that_the_legend_gives_it(states, level):
    page = Page(explored(cells=[FaultCount("#1", "lost", states, 0)]).to_html())
    assert len(page.of_class(f"h{level}")) == 1


def test_the_page_tells_each_failure_with_the_line_to_paste():
    text = Page(large().to_html()).text
    for part in (*failure().survivors, *failure().trace, failure().expected, failure().found, failure().crash):
        assert part in text
    assert failure().remedy in text
    assert 'explore_crashes(workload, check, repro="v1-13-lost.4")' in text
    assert "enumerated1,234,567" in text


def test_the_page_escapes_all_that_it_is_given():
    report = Report(
        HOSTILE, HOSTILE, 1, bound=HOSTILE, cells=[FaultCount(HOSTILE, HOSTILE, 1, 0)], failures=[hostile_failure()]
    )
    page = Page(report.to_html())
    assert all(tag not in ("script", "b") for tag, _ in page.tags)
    # The title and the heading, the profile, the bound, both heads of the table, and seven fields of the failure.
    assert page.text.count(HOSTILE_SHOWN) == 13
    assert page.titles == [HOSTILE_SHOWN, f"{HOSTILE_SHOWN}, {HOSTILE_SHOWN}: 1 states, 0 failures"]


def test_the_page_of_what_found_nothing_has_no_heat_and_no_failure():
    page = Page(Report("orders", "posix", 1).to_html())
    assert "nothing was checked" in page.text
    assert all(tag not in ("thead", "section") for tag, _ in page.tags)


def test_the_same_report_writes_the_same_file(tmp_path):
    report = large()
    report.write_html(tmp_path / "first.html")
    report.write_html(str(tmp_path / "second.html"))
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()
    assert (tmp_path / "first.html").read_text("utf-8") == large().to_html()


def hostile_failure():
    return Failure(HOSTILE, HOSTILE, HOSTILE, HOSTILE, (HOSTILE,), (HOSTILE,), HOSTILE, HOSTILE)
