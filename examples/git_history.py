"""A git repository's history as events, and answers from projections that are proved against git itself.

    python examples/git_history.py [REPO] [--at COMMIT] [--top N] [--full]

Each commit becomes one event in the stream ``commits``, and one in the stream of each path that it changed, all in
one transaction. A path's change is told against the commit's first parent. So the tree at a commit is a fold over
those events of each path whose commit stands on the first-parent line that leads to it: the line is what a merge
does not confuse, and every commit has one.

The first part is pure: events, steps, and programs that run on any store. The second asks git, runs the programs,
prints, and proves: each tree must equal what ``git ls-tree -r`` prints, mode and blob id, path by path.
"""

import hashlib
import os
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import nlargest
from io import TextIOWrapper
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Annotated, NoReturn, TypeVar

import msgspec
import typer
from git_reader import Commit, GitError, Repository
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from interpreters import Store, open_store
from persist_effects import (
    Conflict,
    Draft,
    Effect,
    Event,
    Request,
    Schema,
    View,
    compaction,
    follow,
    kv,
    log,
    perform,
    snapshot,
    transact,
    view,
)
from persist_effects.requests import PAGE_SIZE, Append, KvDelete, KvPut, Write

A = TypeVar("A")
K = TypeVar("K", str, bytes)
V = TypeVar("V")

OTHER_COMMITS = 10
"""At how many commits besides HEAD the trees are proved."""

DIFFERENCES_SHOWN = 20

BATCH_SIZE = 100
"""How many programs are run together: what a store can make one commit, or one exchange with a server, of."""

# Events, and the streams that they stand in


class Committed(msgspec.Struct, frozen=True):
    """A commit was made. Its event's time is when its author wrote it."""

    id: str
    parents: list[str]
    author: str
    subject: str


class Written(msgspec.Struct, frozen=True):
    """A commit put a leaf under a path: mode and blob id, as in ``"100644 e69de29b…"``."""

    path: bytes
    commit: str
    author: str
    in_merge: bool
    leaf: str


class Removed(msgspec.Struct, frozen=True):
    """A commit took a path away."""

    path: bytes
    commit: str
    author: str
    in_merge: bool


HISTORY = Schema({"committed": Committed, "written": Written, "removed": Removed})

COMMITS = "commits"
PATHS = "path/"
CURRENT_BLOBS = "blob/"

# What a name may take, less the longest prefix that is put before one here: "snapshot/facts-0123456789ab/path/".
_PATH_NAME_LIMIT_BYTES = 512 - 40
# Git's times know no bounds; an event's time is 64 bits of microseconds.
_LATEST_SECONDS = (2**63 - 1) // 1_000_000

_UNPRINTABLE = re.compile("[%\x00-\x1f\x7f-\x9f\udc80-\udcff]")


def name_of(path: bytes) -> str:
    r"""A name for a path: readable, and another for each path.

    Bytes that are no UTF-8, control characters and the percent sign are escaped, as ``urllib.parse.unquote_to_bytes``
    undoes it. A path too long for a name is named by its digest, after a percent sign that escapes nothing.

    >>> name_of("Zürich 100%".encode()), name_of(b"caf\xe9\n")
    ('Zürich 100%25', 'caf%E9%0A')
    """
    name = _UNPRINTABLE.sub(_escape, path.decode("utf-8", "surrogateescape"))
    if len(name.encode()) > _PATH_NAME_LIMIT_BYTES:
        return f"%sha256/{hashlib.sha256(path).hexdigest()}"
    return name


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogateescape"))


# Programs that write


class Progressed(Request[None], frozen=True, tag="git-history/progressed"):
    """An effect of this example's own: so much of a task is done. The command line answers it with a bar."""

    task: str
    done: int


def record(commit: Commit, number: int) -> Effect[int]:
    """Append a commit's events, all or none, and once: the number of changes appended, 0 if it was there before."""
    at = max(-_LATEST_SECONDS, min(commit.authored_at_seconds, _LATEST_SECONDS)) * 1_000_000
    committed = Committed(commit.id, list(commit.parents), commit.author, commit.subject)
    answers = yield from transact(
        KvPut(f"commit/{commit.id}", number, expected=0),
        Append(COMMITS, (HISTORY.draft(committed, at=at),)),
        *(Append(PATHS + name_of(path), (draft,)) for path, draft in change_drafts(commit, at)),
    )
    yield from perform(Progressed("commits", number))
    return 0 if isinstance(answers, Conflict) else len(commit.changes)


def change_drafts(commit: Commit, at: int) -> Iterator[tuple[bytes, Draft]]:
    """The paths that a commit changed, each with the event that says how."""
    in_merge = len(commit.parents) > 1
    for change in commit.changes:
        path, leaf = change.path, change.leaf
        if leaf is None:
            yield path, HISTORY.draft(Removed(path, commit.id, commit.author, in_merge), at=at)
        else:
            yield path, HISTORY.draft(Written(path, commit.id, commit.author, in_merge, leaf), at=at)


def keep_current_blobs(line: Mapping[str, int]) -> Effect[int]:
    """Bring kv up to date: under ``blob/<path>`` the blob id that each path has at the first of the line's targets."""

    def on_change(event: Event) -> Effect[Sequence[Write]]:
        change = HISTORY.lift(event).data
        key = CURRENT_BLOBS + event.stream.removeprefix(PATHS)
        if event.position % 1_000 == 0:
            yield from perform(Progressed("current blobs", event.position))
        if not line.get(change.commit, 0) & 1:
            return []
        return [KvPut(key, _blob_of(change.leaf))] if isinstance(change, Written) else [KvDelete(key)]

    return (yield from follow("current-blobs", PATHS, on_change, batch=1_000))


def _blob_of(leaf: str) -> str:
    return leaf.partition(" ")[2]


# Projections


def count_by_author(commits: dict[str, int], event: Event) -> dict[str, int]:
    """The step of the view of who made how many commits. Copying the dict keeps it pure; authors are few."""
    return _one_more(commits, event.data.author)


AUTHORS = View[dict[str, int]]("authors", COMMITS, HISTORY.typed(count_by_author), {})


class PathFacts(msgspec.Struct, frozen=True):
    """What a path's stream comes to: its leaf in the tree at each target, and how often each author changed it.

    What a merge changes against its first parent was changed by its other parents before, so it counts for nobody.
    """

    path: bytes
    leaves: list[str | None]
    changes: dict[str, int]


class Question:
    """The commits whose trees are asked for, and the projection of one path's stream that answers.

    ``line[commit]`` has bit k set where the commit stands on the first-parent line to ``targets[k]``.
    """

    def __init__(self, targets: Sequence[str], line: Mapping[str, int]) -> None:
        self.targets = tuple(targets)
        self.line = line
        self.seed = PathFacts(b"", [None] * len(targets), {})
        self.step = HISTORY.typed(self._step)
        self._digest = hashlib.sha256(" ".join(targets).encode()).hexdigest()[:12]

    def snapshot_name(self, stream: str) -> str:
        """Where a path's facts are kept. They are of these targets, so another question has names of its own."""
        return f"facts-{self._digest}/{stream}"

    def _step(self, facts: PathFacts, event: Event) -> PathFacts:
        change = event.data
        bits = self.line.get(change.commit, 0)
        leaf = change.leaf if isinstance(change, Written) else None
        leaves = [leaf if bits >> k & 1 else old for k, old in enumerate(facts.leaves)] if bits else facts.leaves
        changes = facts.changes if change.in_merge else _one_more(facts.changes, change.author)
        return PathFacts(change.path, leaves, changes)


def _one_more(counts: dict[str, int], key: str) -> dict[str, int]:
    return {**counts, key: counts.get(key, 0) + 1}


# Programs that read


def ask_about(targets: Sequence[str]) -> Effect[Question]:
    """The question about these commits: one pass over the commits, newest first, so that children precede parents."""
    line: dict[str, int] = defaultdict(int)
    for k, target in enumerate(targets):
        line[target] |= 1 << k
    last = yield from log.last_seq(COMMITS)
    while last > 0:
        first = max(1, last - PAGE_SIZE + 1)
        events = yield from log.read(COMMITS, after=first - 1, until=last, backwards=True)
        for event in events:
            commit = HISTORY.lift(event).data
            if commit.parents and commit.id in line:
                line[commit.parents[0]] |= line[commit.id]
        last = first - 1
    return Question(targets, dict(line))


def spread_commits(count: int) -> Effect[list[str]]:
    """The ids of ``count`` commits before the newest, at even distances from the oldest on."""
    older = (yield from log.last_seq(COMMITS)) - 1
    count = min(count, older)
    ids: list[str] = []
    for number in (1 + index * older // count for index in range(count)):
        (event,) = yield from log.read_range(COMMITS, number, number)
        ids.append(HISTORY.lift(event).data.id)
    return ids


def facts_of(question: Question, stream: str) -> Effect[PathFacts]:
    """A path's facts, from its snapshot if there is one, and the events after it."""
    state = yield from snapshot.replay(question.snapshot_name(stream), stream, question.step, question.seed)
    return state.value


def compact_path(question: Question, stream: str) -> Effect[int]:
    """Put a snapshot in the place of a path's events, and return how many went. One alone is as small as its facts."""
    name = question.snapshot_name(stream)
    state = yield from compaction.maybe_compact(name, stream, question.step, question.seed, every=2)
    return 0 if state is None else state.seq


class Answers(msgspec.Struct, frozen=True):
    """What the projections say: the facts of every path, in the order of their paths, and each author's commits."""

    targets: tuple[str, ...]
    paths: list[PathFacts]
    commits_by_author: dict[str, int]

    def tree(self, target: str) -> dict[bytes, str]:
        """Each path's leaf in the tree of a commit that was asked about."""
        k = self.targets.index(target)
        return {facts.path: leaf for facts in self.paths if (leaf := facts.leaves[k]) is not None}


# Running the programs on a store, with git on the one side and bars on the other


class Bars:
    """Progress bars on stderr, one for each task. `show` is the row of the handler table that answers `Progressed`."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:>14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=Console(stderr=True))
        self._bars: dict[str, TaskID] = {}

    def begin(self, task: str, total: int) -> None:
        """Show an empty bar."""
        self._bars[task] = self.progress.add_task(task, total=total)

    def show(self, request: Progressed) -> None:
        """Move a bar."""
        self.progress.update(self._bars[request.task], completed=request.done)


def in_batches(store: Store, bars: Bars, task: str, program: Callable[[str], Effect[A]], names: list[str]) -> list[A]:
    """The values of a program for each name, run some at a time, so that a store may answer those together."""
    bars.begin(task, len(names))
    values: list[A] = []
    for first in range(0, len(names), BATCH_SIZE):
        values += store.run_many(program(name) for name in names[first : first + BATCH_SIZE])
        bars.show(Progressed(task, len(values)))
    return values


def import_history(store: Store, bars: Bars, repository: Repository, head: str) -> None:
    """Record every commit that HEAD reaches. Each is one transaction; a store may make one commit of a batch."""
    bars.begin("commits", repository.count_commits(head))
    numbered = enumerate(repository.commits(head), 1)
    while batch := list(islice(numbered, BATCH_SIZE)):
        store.run_many(record(commit, number) for number, commit in batch)


def answer(store: Store, bars: Bars, task: str, question: Question) -> Answers:
    """What the store says, from its projections and nothing else."""
    streams = store.run(log.streams(PATHS))
    paths = in_batches(store, bars, task, partial(facts_of, question), streams)
    paths.sort(key=attrgetter("path"))
    return Answers(question.targets, paths, store.run(view.value(AUTHORS)))


def snapshot_and_compact(store: Store, bars: Bars, question: Question) -> int:
    """Snapshot the view of the authors, compact every path, and return how many events went."""
    store.run(view.refresh(AUTHORS))
    streams = store.run(log.streams(PATHS))
    return sum(in_batches(store, bars, "compaction", partial(compact_path, question), streams))


def current_blobs(store: Store, bars: Bars, question: Question) -> dict[str, str]:
    """Let the subscription catch up, and return what it keeps in kv: a blob id for each path's name."""
    bars.begin("current blobs", store.run(log.read_all(limit=1)).head)
    bars.show(Progressed("current blobs", store.run(keep_current_blobs(question.line))))
    keys = store.run(kv.keys(CURRENT_BLOBS))
    blobs = in_batches(store, bars, "kv", kv.get, keys)
    return {key.removeprefix(CURRENT_BLOBS): blob for key, blob in zip(keys, blobs, strict=True)}


# The proof


class Proof:
    """Compares what the store says with what git says, and keeps count. Trees are held one at a time."""

    def __init__(self) -> None:
        self.paths_compared = 0
        self.commits_compared = 0
        self.differences: list[str] = []

    def compare_trees(self, repository: Repository, answers: Answers) -> None:
        """Each projected tree must be the one that ``git ls-tree -r`` prints."""
        for target in answers.targets:
            expected, found = repository.tree(target), answers.tree(target)
            self.paths_compared += len(expected.keys() | found.keys())
            self.commits_compared += 1
            self.differences += differing(f"tree at {target[:12]}", expected, found, name_of)

    def compare_commits(self, repository: Repository, head: str, answers: Answers) -> None:
        """The commits of all authors must be as many as HEAD reaches."""
        expected, found = repository.count_commits(head), sum(answers.commits_by_author.values())
        if expected != found:
            self.differences.append(f"commits: expected {expected}, found {found}")

    def compare_current_blobs(self, repository: Repository, head: str, found: Mapping[str, str]) -> None:
        """The blob ids in kv must be those of the tree at HEAD."""
        expected = {name_of(path): _blob_of(leaf) for path, leaf in repository.tree(head).items()}
        self.differences += differing("blob id in kv", expected, found, str)

    def compare_answers(self, before: Answers, after: Answers) -> None:
        """What the store says after compaction must be what it said before."""
        if before == after:
            return
        expected, found = ({facts.path: facts for facts in answers.paths} for answers in (before, after))
        self.differences += differing("after compaction", expected, found, name_of)
        self.differences += differing("after compaction", before.commits_by_author, after.commits_by_author, str)

    def report(self) -> None:
        """Say how it went. The last line is the verdict."""
        paths, commits = counted(self.paths_compared, "path"), counted(self.commits_compared, "commit")
        checked = f"{paths} compared at {commits}, mode and blob id"
        if not self.differences:
            typer.echo(f"proved: {checked}, no difference")
            return
        for line in self.differences[:DIFFERENCES_SHOWN]:
            typer.echo(line)
        typer.echo(f"not proved: {checked}, {counted(len(self.differences), 'difference')}")


def differing(what: str, expected: Mapping[K, V], found: Mapping[K, V], name: Callable[[K], str]) -> Iterator[str]:
    """A line for each key under which the two do not hold the same."""
    for key in sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)):
        yield f"{what}: {printable(name(key))}: expected {expected.get(key)}, found {found.get(key)}"


# What is printed


def printable(text: str) -> str:
    """Text that does nothing to a terminal but stand there."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def counted(count: int, thing: str) -> str:
    """So many of a thing.

    >>> counted(1, "path"), counted(0, "path")
    ('1 path', '0 paths')
    """
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def print_tree(title: str, tree: Mapping[bytes, str], limit: int | None) -> None:
    """The leaves of a tree in the order of their paths, at most so many."""
    typer.echo(f"{title}: {counted(len(tree), 'path')}")
    for path in islice(tree, limit):
        typer.echo(f"  {tree[path]}  {printable(name_of(path))}")
    if limit is not None and len(tree) > limit:
        typer.echo(f"  … and {len(tree) - limit} more, which --full shows")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | int]]) -> None:
    """A table: texts to the left, numbers to the right."""
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    # Through one door, which tells of a pipe that was closed.
    console = Console()
    with console.capture() as printed:
        console.print(table)
    print(printed.get(), end="", flush=True)


def _cell(value: str | int) -> Text:
    # Text, so that brackets in a name are no markup.
    return Text(printable(str(value)), justify="right" if isinstance(value, int) else "left")


def most_changed_paths(answers: Answers, count: int) -> Iterator[Sequence[str | int]]:
    """Path, changes, authors: of the paths that were changed most often."""
    for facts in nlargest(count, answers.paths, key=lambda facts: sum(facts.changes.values())):
        yield name_of(facts.path), sum(facts.changes.values()), len(facts.changes)


def who_changed_what(answers: Answers, count: int) -> Iterator[Sequence[str | int]]:
    """Author, commits, changes, paths, path changed most often: of the authors of the most commits."""
    changes, paths, favorites = Counter[str](), Counter[str](), dict[str, tuple[int, bytes]]()
    for facts in answers.paths:
        for author, times in facts.changes.items():
            changes[author] += times
            paths[author] += 1
            if times > favorites.get(author, (0, b""))[0]:
                favorites[author] = (times, facts.path)
    for author, commits in nlargest(count, answers.commits_by_author.items(), key=itemgetter(1)):
        favorite = name_of(favorites[author][1]) if author in favorites else ""
        yield author, commits, changes[author], paths[author], favorite


# The command line

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    repo: Annotated[str, typer.Argument(help="The repository, or any directory in it.")] = ".",
    at: Annotated[str | None, typer.Option(help="Show and prove the tree at this commit, too.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 10,
    full: Annotated[bool, typer.Option("--full", help="Show every path of a tree.")] = False,
) -> None:
    """Turn a git repository's history into events, answer from projections, and prove the answers against git."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that cannot show a character shall not end the run.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        proof = tell(Repository(repo), at, top, None if full else top)
        proof.report()
        sys.stdout.flush()
    except GitError as error:
        end(printable(str(error)), 2)
    except KeyboardInterrupt:
        end("interrupted", 130)
    except BrokenPipeError:
        # Who read has seen enough: end as a program does that the signal SIGPIPE ends.
        drop_output()
        raise typer.Exit(141) from None
    except OSError as error:
        drop_output()
        end(f"the answers cannot be written: {error.strerror}", 2)
    if proof.differences:
        raise typer.Exit(1)


def drop_output() -> None:
    """Let what is still to be written to stdout go nowhere, so that the end of the process does not fail at it."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def end(message: str, exit_code: int) -> NoReturn:
    """Say in one line why the run ends here."""
    typer.echo(f"git_history: {message}", err=True)
    raise typer.Exit(exit_code)


def tell(repository: Repository, at: str | None, top: int, tree_limit: int | None) -> Proof:
    """Import, subscribe, answer, compact, answer again; print the answers, and return how they compare with git."""
    head = repository.head()
    shown = {} if head is None else {"HEAD": head}
    if at is not None:
        shown[at] = repository.reachable_commit(at, head)
    proof, bars = Proof(), Bars()
    with bars.progress, open_store("memory:", effects={Progressed: bars.show}) as store:
        if head is not None:
            import_history(store, bars, repository, head)
        # HEAD is the first target; no commit is asked about twice.
        targets = list(dict.fromkeys([*shown.values(), *store.run(spread_commits(OTHER_COMMITS))]))
        question = store.run(ask_about(targets))
        blobs = current_blobs(store, bars, question)
        before = answer(store, bars, "paths", question)
        dropped = snapshot_and_compact(store, bars, question)
        answers = answer(store, bars, "paths again", store.run(ask_about(targets)))
        proof.compare_answers(before, answers)
        proof.compare_trees(repository, answers)
        if head is not None:
            proof.compare_commits(repository, head, answers)
            proof.compare_current_blobs(repository, head, blobs)
    if head is None:
        typer.echo("there are no commits yet, and nothing to tell of")
    for name, commit in shown.items():
        print_tree(f"tree at {printable(name)}, {commit[:12]}", answers.tree(commit), tree_limit)
    print_table("Most changed paths", ("path", "changes", "authors"), most_changed_paths(answers, top))
    columns = ("author", "commits", "changes", "paths", "changed most")
    print_table("Who changed what", columns, who_changed_what(answers, top))
    typer.echo(f"compacted: snapshots stand for {counted(dropped, 'event')}")
    return proof


if __name__ == "__main__":
    app()
