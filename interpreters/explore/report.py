"""What an exploration found: as text, as a table for terminals, and as one page of HTML.

Nothing in here knows what a disk or a store is. Requests and faults are labels, in the order in which they first
appear, and a failure is told in the words of whoever found it. The same report always gives the same text and page.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from interpreters.explore.shortening import allotted, beginning, beginning_and_end
from persist_effects.errors import InvalidRequest
from persist_effects.event import check_integer

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

NOT_DETERMINISTIC = "not deterministic"
UNDECIDED = "undecided"
INVARIANT_BROKEN = "invariant broken"
POLLS, LIVELOCK = "polls without end", "livelock"
ENDLESS = ("hangs", POLLS, LIVELOCK)
"""The kinds of failure of programs that ask for ever."""
NO_VERDICT = (NOT_DETERMINISTIC, *ENDLESS, "raises", UNDECIDED)
"""The kinds of failure that say of a workload that nothing can be said of it."""

_CRASH_MARK = "  ✗ "
_LABEL_WIDTH = 60
"""Longer labels are shortened in text, to leave room for the counts; the page has them in full."""

_LINES_SHOWN = 39
"""How many lines the text has at the most: what a person reads, and a terminal shows at once."""

_OTHERS_SHOWN = 6
"""How many lines are for the failures after the first one."""

_TRACE_SHOWN = 14
"""How many lines of a trace are shown before the table gets any."""

_LEVELS = ("0", "1 to 3", "4 to 15", "16 to 63", "64 to 255", "256 to 1,023", "1,024 and more")
"""How many states each colour of the heat map stands for: each has room for four times as many as the one before."""


class Problem(NamedTuple):
    """What is wrong with a state, or with a run."""

    kind: str
    expected: str
    found: str


class _Words(NamedTuple):
    """How reports of one sort speak: of what they count, of a failure, and of the call that shows it again."""

    call: str
    extent: str = "depth {}"
    equal: str = "to a state that was checked"
    caption: str = "states checked of each fault at each request"
    counted: str = "states"
    crash: str = "crash"
    survivors: str = "survivors"


_CRASHES = _Words("explore_crashes(workload, check")
_WORDS = {
    "disk": _Words("explore_disk(workload, check"),
    "effects": _Words("explore_effects(program, store_factory, check"),
    "schedule": _Words(
        "explore(programs, store_factory, check",
        extent="switches {}",
        equal="from some step on to one that was checked",
        caption="interleavings checked with a switch, or a crash, at each request",
        counted="interleavings",
        crash="essence",
        survivors="outcomes",
    ),
    "files": _Words(
        "explore_files(function, check",
        extent="calls {}",
        caption="images checked of each profile of file systems",
        counted="images",
    ),
}
"""By the first word of the profile; all others are of the store's disk."""


class FaultCount(msgspec.Struct, frozen=True):
    """How many states were checked of one fault at one request, and how many of them failed."""

    request: str
    fault: str
    states: int
    failures: int


class Failure(msgspec.Struct, frozen=True):
    """One state in which something was wrong, with all that is needed to understand it and to see it again.

    ``survivors`` says what was lost, torn, reordered or failed. ``trace`` holds the requests around the crash; the
    crash itself is a line of its own that starts with ``"  ✗ "``. ``token`` replays exactly this state, and
    ``remedy`` is what would make it pass, where that is known. ``sources`` has a place in your code for each line of
    the trace, where that was looked for, and ``passes`` says what would have to come before what.
    """

    kind: str
    expected: str
    found: str
    crash: str
    survivors: tuple[str, ...]
    trace: tuple[str, ...]
    token: str
    remedy: str | None = None
    sources: tuple[str, ...] = ()
    passes: tuple[str, ...] = ()


class Report(msgspec.Struct):
    """What was explored, how much of it, and what failed. Print it, or write it as a page.

    ``equal`` states were not checked, since they are equal to one that was. ``seed`` is that of a sample. Cells of
    the same request and fault are shown as one. ``failed`` says how many failed, where cells overlap and their sum does
    not say it. In a report of interleavings, those are the states, and ``depth`` is the most switches that one has.

    >>> report = Report("orders", "posix", depth=1, enumerated=1200, equal=200, checked=1000, bound="3 requests")
    >>> report.cells.append(FaultCount("#1 disk/write log", "lost", 400, 0))
    >>> report.cells.append(FaultCount("#2 disk/sync log", "torn", 600, 2))
    >>> print(report)
    orders, posix, depth 1: failed
    <BLANKLINE>
      enumerated  1,200
      equal         200  to a state that was checked
      checked     1,000
      failures        2  0 told below
    <BLANKLINE>
      exhaustive within the bound: 3 requests
    <BLANKLINE>
    states checked of each fault at each request; ✗2/14: 2 of 14 failed
    <BLANKLINE>
                       lost
                       │    torn
    #1 disk/write log  400      ·
    #2 disk/sync log     ·  ✗2/600
    """

    subject: str
    profile: str
    depth: int
    enumerated: int = 0
    equal: int = 0
    checked: int = 0
    is_exhaustive: bool = True
    bound: str = ""
    seed: int | None = None
    not_reached: str = ""
    """What there was no time for, where that was the reason to end."""
    arguments: str = ""
    """Those that must be given again, as code, for a token to mean the same."""
    cells: list[FaultCount] = []
    failures: list[Failure] = []
    failed: int | None = None

    @property
    def failure_count(self) -> int:
        """How many states failed, whether or not each has its own `Failure`."""
        counted = sum(cell.failures for cell in self.cells) if self.failed is None else self.failed
        return max(len(self.failures), counted)

    @property
    def verdict(self) -> str:
        """``"passed"``, ``"failed"``, or why there is no verdict: ``"nothing was checked"``, or one of `NO_VERDICT`.

        Where some failures are of those kinds and others are not, it is ``"failed"``.

        >>> Report("orders", "posix", depth=1).verdict
        'nothing was checked'
        >>> Report("orders", "posix", depth=1, checked=7).verdict
        'passed'
        """
        if self.failure_count == 0:
            return "passed" if self.checked > 0 else "nothing was checked"
        kinds = [failure.kind for failure in self.failures]
        is_without = bool(kinds) and all(kind in NO_VERDICT for kind in kinds)
        return kinds[0] if is_without else "failed"

    def __str__(self) -> str:
        """In less than forty lines: what is left out of the table, or of a failure, is counted where it would stand."""
        return "\n\n".join("\n".join(part) for part in _text_parts(self))

    def failure_text(self, number: int) -> str:
        """All that is known of a failure, however long that is.

        Args:
            number: Which one, from 1, as they are counted in the text of the report.

        Returns:
            The text, with the call that shows the failure again.

        Raises:
            InvalidRequest: If the report has no such failure.

        >>> failure = Failure("raises", "every program ends", "orders raises KeyError", "", (), ("#1", "#2"), "s1:0")
        >>> print(Report("orders", "schedule", depth=0, failures=[failure]).failure_text(1))
        failure 1 of 1: raises
        <BLANKLINE>
          expected   every program ends
          found      orders raises KeyError
          trace
            #1
            #2
        <BLANKLINE>
        To see it again:
        explore(programs, store_factory, check, repro="s1:0")
        """
        check_integer("number", number, 1)
        if number > len(self.failures):
            told = (
                f"the report tells {len(self.failures):,}: give a number from 1" if self.failures else "it tells none"
            )
            raise InvalidRequest(f"there is no failure {number:,}: {told}")
        return "\n".join(_text_of_failure(self, number))

    def table(self) -> "RenderableType":
        """The same as the text, for `rich` to print on terminals of any width. Needs the package rich.

        A line that is longer than the terminal is wide is folded: to copy one whole, print the report as text.
        Raises `InvalidRequest` without rich.

        >>> from rich.console import Console
        >>> Console(width=72).print(Report("orders", "posix", depth=1, checked=7).table())
        orders, posix, depth 1: passed
        ...
        """
        try:
            from rich.console import Group
            from rich.text import Text
        except ModuleNotFoundError as error:
            raise InvalidRequest("`Report.table` needs the package rich: pip install rich") from error
        title, *counts = _head(self)
        parts: list[RenderableType] = [Text(title, style=f"bold {_color(self)}"), Text("\n".join(counts))]
        if self.cells:
            parts.append(_TerminalHeat(_Grid(self.cells), _caption(self)))
        for number in range(1, len(self.failures) + 1):
            parts.append(Text(""))
            for line in _text_of_failure(self, number):
                is_bold = line.startswith(("failure ", "    " + _CRASH_MARK))
                parts.append(Text(line, style="bold red" if is_bold else ""))
        return Group(*parts)

    def to_html(self) -> str:
        """One page that needs nothing else: the counts, a heat map of requests and faults, and each failure.

        >>> page = Report("a < b", "posix", depth=1, checked=7).to_html()
        >>> "<h1>a &lt; b: " in page
        True
        """
        parts = [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{_html(self.subject)}: {_html(self.verdict)}</title>",
            f"<style>{_CSS}</style></head><body>",
            *_html_of_head(self),
            *_html_of_heat(self),
            *(_html_of_failure(self, number) for number in range(1, len(self.failures) + 1)),
            "</body></html>",
        ]
        return "\n".join(parts) + "\n"

    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Write the page of `to_html` to a file, in UTF-8. A file that is there already is replaced.

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     page = Path(directory, "crashes.html")
        ...     Report("orders", "posix", depth=1).write_html(page)
        ...     page.read_text("utf-8").startswith("<!DOCTYPE html>")
        True
        """
        Path(path).write_text(self.to_html(), "utf-8", newline="\n")


# What all three show


class _Grid:
    """The cells by request and fault, both in the order in which they first appear."""

    def __init__(self, cells: Iterable[FaultCount]) -> None:
        self.cells: dict[tuple[str, str], FaultCount] = {}
        for cell in cells:
            place = cell.request, cell.fault
            old = self.cells.get(place, FaultCount(*place, 0, 0))
            self.cells[place] = FaultCount(*place, old.states + cell.states, old.failures + cell.failures)
        self.requests = list(dict.fromkeys(request for request, _ in self.cells))
        self.faults = list(dict.fromkeys(fault for _, fault in self.cells))

    def shown(self, room: int) -> tuple[list[str], int]:
        """The requests that so many lines have room for, those that failed first, and how many are left out."""
        if len(self.requests) <= room:
            return self.requests, 0
        failing = {cell.request for cell in self.cells.values() if cell.failures}
        # One line says that some are left out.
        kept = {*sorted(self.requests, key=lambda request: request not in failing)[: max(room - 1, 0)]}
        return [request for request in self.requests if request in kept], len(self.requests) - len(kept)

    def row(self, request: str) -> list[FaultCount | None]:
        """The cells of a request, one for each fault; None where the request does not have that fault."""
        return [self.cells.get((request, fault)) for fault in self.faults]


def _counts(report: Report) -> list[tuple[str, str, str]]:
    """Each count: its name, its figure, and what there is to say of it."""
    told, failed = len(report.failures), report.failure_count
    return [
        ("enumerated", f"{report.enumerated:,}", ""),
        ("equal", f"{report.equal:,}", _words(report).equal),
        ("checked", f"{report.checked:,}", ""),
        ("failures", f"{failed:,}", f"{told:,} told below" if told < failed else ""),
    ]


def _words(report: Report) -> _Words:
    return _words_of(report.profile)


def _words_of(profile: str) -> _Words:
    return _WORDS.get(profile.partition(" ")[0], _CRASHES)


def _caption(report: Report) -> str:
    return f"{_words(report).caption}; ✗2/14: 2 of 14 failed"


def _extent(report: Report) -> str:
    seed = "" if report.seed is None else f", seed {report.seed}"
    extent = "exhaustive within the bound" if report.is_exhaustive else f"sampled{seed}"
    return f"{extent}: {_line(report.bound)}" if report.bound else extent


def _told_left_out(count: int) -> list[str]:
    return [f"… {count:,} more requests, which the table and the page have"] if count else []


def _figure(cell: FaultCount | None) -> str:
    if cell is None:
        return "·"
    return f"✗{cell.failures:,}/{cell.states:,}" if cell.failures else f"{cell.states:,}"


def _color(report: Report) -> str:
    return {"passed": "green", "failed": "red"}.get(report.verdict, "yellow")


def _fields(report: Report, failure: Failure) -> list[tuple[str, Sequence[str]]]:
    """What is said of a failure before its trace: each a label and its lines. What is empty is left out."""
    fields: list[tuple[str, Sequence[str]]] = [
        ("expected", [failure.expected]),
        ("found", [failure.found]),
        (_words(report).crash, [failure.crash]),
        (_words(report).survivors, failure.survivors),
        ("passes if", failure.passes),
    ]
    return [(label, lines) for label, lines in fields if any(lines)]


def _replay(report: Report, failure: Failure) -> str:
    return line_to_paste(report.profile, failure.token, report.arguments)


def line_to_paste(profile: str, token: str, arguments: str = "") -> str:
    """The call that shows a state again, which is Python and ASCII whatever is in the token.

    >>> line_to_paste("posix", "13.0a1b2c3d")
    'explore_crashes(workload, check, repro="13.0a1b2c3d")'
    """
    again = f", {arguments}" if arguments else ""
    return f"{_words_of(profile).call}{again}, {_repro(token)})"


def _repro(token: str) -> str:
    escaped = token.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'repro="{escaped}"'


def told_end(profile: str, token: str, arguments: str = "") -> str:
    """What a note says on an error that ended an exploration: in which state that was, and how to see it again.

    >>> print(told_end("schedule", "s1:0,1"))
    this ended the exploration in the state s1:0,1. To see it again:
    explore(programs, store_factory, check, repro="s1:0,1")
    """
    return (
        f"this ended the exploration in the state {token}. To see it again:\n{line_to_paste(profile, token, arguments)}"
    )


def _printable(text: str) -> str:
    """The text with escapes for what a terminal would obey, or what would not show: control and format characters."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char == "\n" else repr(char)[1:-1] for char in text)


def _line(text: str) -> str:
    return " ".join(_printable(text).split("\n"))


# Text


def _head(report: Report) -> list[str]:
    counts = _counts(report)
    width = max(len(figure) for _, figure, _ in counts)
    lines = [f"  {name:<10}  {figure:>{width}}  {note}".rstrip() for name, figure, note in counts]
    title = f"{_line(report.subject)}, {_line(report.profile)}, {_depth(report)}: {report.verdict}"
    not_reached = [f"  not reached: {_line(report.not_reached)}"] if report.not_reached else []
    return [title, "", *lines, "", f"  {_extent(report)}", *not_reached]


def _depth(report: Report) -> str:
    return _words(report).extent.format(report.depth)


def _text_parts(report: Report) -> list[list[str]]:
    """The parts of the text, each below an empty line."""
    head, others = _head(report), _text_of_others(report)
    failed = [_text_of_failure(report, 1)] if report.failures else []
    whole = [head, *_text_of_heat(report, _LINES_SHOWN), *failed, *others]
    if _size(whole) <= _LINES_SHOWN:
        return whole
    room = _LINES_SHOWN - _size([head, *others]) - 1
    if failed:
        # The table is at least a line, below an empty one.
        failed = [_shortened_failure(report, room - 2 * bool(report.cells))]
        room -= _size(failed) + 1
    return [head, *_text_of_heat(report, room), *failed, *others]


def _size(parts: Sequence[Sequence[str]]) -> int:
    """How many lines they are, with an empty one between any two."""
    return sum(map(len, parts)) + len(parts) - 1


def _text_of_heat(report: Report, room: int) -> Iterator[list[str]]:
    """A table whose columns are as narrow as their figures: each heading has a line of its own, led down by a bar."""
    grid = _Grid(report.cells)
    if not grid.cells:
        return
    # Beside the headings, the caption and the empty line below it.
    requests, left_out = grid.shown(room - len(grid.faults) - 2)
    if not requests:
        yield [f"for the {left_out:,} requests there is a table on the page: report.write_html(path)"]
        return
    labels = [_short(request) for request in requests]
    figures = [[_figure(cell) for cell in grid.row(request)] for request in requests]
    label_width = max(map(len, labels))
    widths = [max(map(len, column)) for column in zip(*figures, strict=True)]
    headings = []
    for index, fault in enumerate(grid.faults):
        bars = "".join(f"  {'│':<{width}}" for width in widths[:index])
        headings.append(f"{'':<{label_width}}{bars}  {_short(fault)}")
    rows = [
        f"{label:<{label_width}}" + "".join(f"  {text:>{width}}" for text, width in zip(row, widths, strict=True))
        for label, row in zip(labels, figures, strict=True)
    ]
    yield [_caption(report)]
    yield [*headings, *rows, *_told_left_out(left_out)]


def _short(label: str) -> str:
    label = _line(label)
    half = _LABEL_WIDTH // 2
    return label if len(label) <= _LABEL_WIDTH else f"{label[: half - 1]}…{label[-half:]}"


def _text_of_failure(report: Report, number: int) -> list[str]:
    parts = _parts_of_failure(report, report.failures[number - 1])
    return _lines_of_failure(report, number, [line for _, lines in parts for line in lines])


def _shortened_failure(report: Report, room: int) -> list[str]:
    """The first failure in so many lines: of what is long the beginning, of a trace the end too."""
    parts = _parts_of_failure(report, report.failures[0])
    most = _TRACE_SHOWN if report.cells else room
    needs = [min(len(lines), most) if label == _TRACE else len(lines) for label, lines in parts]
    weights = [_TRACE_WEIGHT if label == _TRACE else 1 for label, _ in parts]
    rooms = allotted(needs, room - len(_lines_of_failure(report, 1, [])), weights)
    told = []
    for (label, lines), count in zip(parts, rooms, strict=True):
        told += beginning_and_end(lines, count, _is_of_crash) if label == _TRACE else beginning(lines, count)
    return _lines_of_failure(report, 1, told, "; all of it: report.failure_text(1)")


def _lines_of_failure(report: Report, number: int, told: Sequence[str], more: str = "") -> list[str]:
    failure = report.failures[number - 1]
    title = f"failure {number:,} of {len(report.failures):,}: {_line(failure.kind)}{more}"
    return [title, "", *told, "", "To see it again:", _replay(report, failure)]


def _parts_of_failure(report: Report, failure: Failure) -> list[tuple[str, list[str]]]:
    """What is said of a failure: each a label and its lines."""
    parts = [(label, _labelled(label, texts)) for label, texts in _fields(report, failure)]
    if failure.trace:
        parts.append((_TRACE, ["  trace", *(f"    {line}" for line in _trace_lines(failure))]))
    if failure.remedy:
        parts.append(("remedy", _labelled("remedy", [failure.remedy])))
    return parts


_TRACE = "trace"
_TRACE_WEIGHT = 3
"""It gets so many lines for each one of something else: a crash needs those around it to be understood."""


def _is_of_crash(line: str) -> bool:
    return line.startswith(f"    {_CRASH_MARK}")


def _text_of_others(report: Report) -> list[list[str]]:
    """A line for each failure after the first, with its token."""
    others = report.failures[1:]
    if not others:
        return []
    shown = others if len(others) <= _OTHERS_SHOWN else others[: _OTHERS_SHOWN - 1]
    lines = [
        f"  {number}  {_short(f'{other.kind}: {other.found}')}  {_repro(other.token)}"
        for number, other in enumerate(shown, 2)
    ]
    if len(shown) < len(others):
        lines.append(f"  … {len(others) - len(shown):,} more")
    return [["the other failures; report.failure_text(2) tells all of the second:", *lines]]


_STEP_WIDTH = 72
"""Up to which length steps are filled up, so that the places behind them stand below each other."""


def _trace_lines(failure: Failure) -> list[str]:
    """The steps, each with the place in the program behind it."""
    steps = [_line(line) for line in failure.trace]
    width = min(_STEP_WIDTH, max(map(len, steps)))
    sources = failure.sources or [""] * len(steps)
    return [
        f"{step:<{width}}  {_line(source)}" if source else step for step, source in zip(steps, sources, strict=True)
    ]


def _labelled(label: str, texts: Iterable[str]) -> list[str]:
    lines = [line for text in texts for line in _printable(text).split("\n")]
    return [f"  {name:<9}  {line}".rstrip() for name, line in zip([label, *[""] * len(lines)], lines, strict=False)]


# Terminals


class _TerminalHeat:
    """As many tables as the width of the terminal asks for: each has some of the faults, and the requests with these.

    Else `rich` would squeeze many columns until their words and figures stand a letter to a line.
    """

    def __init__(self, grid: _Grid, caption: str) -> None:
        self.grid = grid
        self.caption = caption

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> Iterator["RenderableType"]:
        from rich.text import Text

        yield Text(f"\n{self.caption}")
        label_width = min(options.max_width // 2, max(map(len, self.grid.requests)))
        size = max(1, (options.max_width - label_width) // _FAULT_WIDTH)
        for first in range(0, len(self.grid.faults), size):
            yield _table_of_heat(self.grid, range(len(self.grid.faults))[first : first + size])


_FAULT_WIDTH = 11
"""Room for a word of a heading, or a figure, and for the space beside it."""


def _table_of_heat(grid: _Grid, columns: Sequence[int]) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE)
    table.add_column("request", overflow="fold")
    for index in columns:
        table.add_column(Text(_line(grid.faults[index])), justify="right", overflow="fold")
    for request in grid.requests:
        cells = [grid.row(request)[index] for index in columns]
        if any(cells):
            table.add_row(Text(_line(request)), *(Text(_figure(cell), style=_style(cell)) for cell in cells))
    return table


def _style(cell: FaultCount | None) -> str:
    if cell is None:
        return "dim"
    return "bold red" if cell.failures else ""


# The page


def _html(text: str) -> str:
    return escape(_printable(text))


def _html_of_head(report: Report) -> Iterator[str]:
    verdict = f'<span class="{_color(report)}">{_html(report.verdict)}</span>'
    yield f"<h1>{_html(report.subject)}: {verdict}</h1>"
    yield f"<p>{_html(report.profile)}, {_html(_depth(report))}; {_html(_extent(report))}</p>"
    if report.not_reached:
        yield f"<p>not reached: {_html(report.not_reached)}</p>"
    yield '<table class="counts">'
    for name, figure, note in _counts(report):
        yield f'<tr><th scope="row">{name}</th><td>{figure}</td><td class="note">{note}</td></tr>'
    yield "</table>"


def _html_of_heat(report: Report) -> Iterator[str]:
    grid = _Grid(report.cells)
    if not grid.cells:
        return
    words = _words(report)
    yield f"<h2>{words.caption[0].upper()}{words.caption[1:]}</h2>"
    yield _html_of_legend(words.counted)
    yield '<div class="scroll" tabindex="0"><table class="heat"><thead><tr><th scope="col">request</th>'
    for fault in grid.faults:
        yield f'<th scope="col">{_html(fault)}</th>'
    yield "</tr></thead><tbody>"
    for request in grid.requests:
        row = grid.row(request)
        mark = ' class="bad"' if any(cell and cell.failures for cell in row) else ""
        label = _html(request)
        cells = "".join(_html_of_cell(cell, words.counted) for cell in row)
        yield f'<tr><th scope="row"{mark} title="{label}">{label}</th>{cells}</tr>'
    yield "</tbody></table></div>"


def _html_of_legend(counted: str) -> str:
    swatches = [f'<span class="h{level}">{words}</span>' for level, words in enumerate(_LEVELS)]
    return f'<p class="legend">{" ".join(swatches)} {counted}; <span class="fail">✗2/14</span> 2 of 14 failed</p>'


def _html_of_cell(cell: FaultCount | None, counted: str) -> str:
    if cell is None:
        return "<td></td>"
    words = f"{cell.request}, {cell.fault}: {cell.states:,} {counted}, {cell.failures:,} failures"
    level = "fail" if cell.failures else f"h{_level(cell.states)}"
    return f'<td class="{level}" title="{_html(words)}">{_figure(cell)}</td>'


def _level(states: int) -> int:
    """Which of the `_LEVELS` so many states are."""
    return min((states.bit_length() + 1) // 2, len(_LEVELS) - 1)


def _html_of_failure(report: Report, number: int) -> str:
    failure = report.failures[number - 1]
    lines = [f"<section><h2>Failure {number:,} of {len(report.failures):,}: {_html(failure.kind)}</h2>", "<dl>"]
    for label, texts in _fields(report, failure):
        lines.append(f"<dt>{label}</dt>" + "".join(f"<dd>{_html(text)}</dd>" for text in texts))
    if failure.trace:
        trace = "\n".join(map(_html_of_step, _trace_lines(failure)))
        lines.append(f"<dt>trace</dt><dd><pre>{trace}</pre></dd>")
    if failure.remedy:
        lines.append(f'<dt>remedy</dt><dd class="green">{_html(failure.remedy)}</dd>')
    replay = escape(_replay(report, failure))
    lines.append(f"<dt>to see it again</dt><dd><pre>{replay}</pre></dd></dl></section>")
    return "\n".join(lines)


def _html_of_step(line: str) -> str:
    text = escape(_line(line))
    return f'<strong class="red">{text}</strong>' if line.startswith(_CRASH_MARK) else text


_CSS = """
:root { color-scheme: light dark; --page: #fff; --text: #1b1f24; --soft: #59636e; --line: #d1d9e0; --box: #f6f8fa;
  --red: #b3202c; --green: #1a6b34; --yellow: #855500; --fail: #b3202c; --heat: 31 111 235; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --text: #e6edf3; --soft: #9198a1; --line: #3d444d;
  --box: #161b22; --red: #ff7b72; --green: #56d364; --yellow: #e3b341; --heat: 56 139 253; } }
body { margin: 2rem; background: var(--page); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin-top: 2rem; } h1, h2, dd { overflow-wrap: anywhere; }
.red { color: var(--red); } .green { color: var(--green); } .yellow { color: var(--yellow); }
.counts th { text-align: left; font-weight: normal; padding-right: 1.5rem; }
td { text-align: right; font-variant-numeric: tabular-nums; } .counts .note { text-align: left; color: var(--soft);
  padding-left: 1rem; }
.scroll { overflow: auto; max-height: 85vh; width: fit-content; max-width: 100%; border: 1px solid var(--line); }
.heat { border-collapse: separate; border-spacing: 1px; font-size: 13px; }
.heat th { position: sticky; background: var(--box); font-weight: 600; padding: 2px 8px; }
.heat thead th { top: 0; z-index: 1; vertical-align: bottom; min-width: 3.5rem; text-align: right; }
.heat tbody th { left: 0; max-width: 26rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  text-align: left; font: 12px ui-monospace, monospace; }
.heat thead th:first-child { left: 0; z-index: 2; text-align: left; } .heat tbody th.bad { color: var(--red); }
.heat td { padding: 2px 8px; white-space: nowrap; }
.legend span { padding: 2px 8px; font-size: 13px; white-space: nowrap; } .legend { line-height: 2; }
.h0 { color: var(--soft); } .h1 { background: rgb(var(--heat) / 8%); } .h2 { background: rgb(var(--heat) / 16%); }
.h3 { background: rgb(var(--heat) / 26%); } .h4 { background: rgb(var(--heat) / 36%); }
.h5 { background: rgb(var(--heat) / 46%); } .h6 { background: rgb(var(--heat) / 58%); }
.fail { background: var(--fail); color: #fff; font-weight: 600; }
section { border-top: 1px solid var(--line); margin-top: 2rem; }
dt { color: var(--soft); margin-top: .6rem; } dd { margin-left: 1.5rem; white-space: pre-wrap; }
pre { margin: 0; padding: .6rem .8rem; overflow: auto; background: var(--box); font: 13px/1.5 ui-monospace, monospace; }
@media print { .scroll { max-height: none; } }
"""
