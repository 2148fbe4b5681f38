"""A git repository's history as events, and answers from projections that are proved against git itself.

    python examples/git_history.py [REPO] [--at COMMIT] [--top N] [--full] [--store URL]

The programs, which are pure, are in `git_programs`. Here git is asked, the programs run, the answers are printed, and
proved: each tree must equal what ``git ls-tree -r`` prints, mode and blob id, path by path.

The store is kept, so each run records what is missing, also where the one before was killed. What is compacted is a
copy, because what was dropped from the store could answer no other question.
"""

import hashlib
import os
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from heapq import nlargest
from io import TextIOWrapper
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Annotated, NamedTuple, NoReturn, TypeVar

import typer
from git_programs import (
    COMMIT,
    COMMITS,
    PATHS,
    Answers,
    PathFacts,
    Progressed,
    Question,
    answers_of,
    ask_about,
    blob_of,
    compact_path,
    drafts_of,
    facts_of,
    is_history_cut_off_at,
    keep_current_blobs,
    name_of,
    record,
    refreshed_authors,
)
from git_reader import GitError, Repository
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from interpreters import Store, open_store
from persist_effects import (
    CallerError,
    CorruptStore,
    Event,
    InvalidRequest,
    PersistError,
    StoreUnavailable,
    UncertainOutcome,
    kv,
    log,
    view,
)

A = TypeVar("A")
K = TypeVar("K", str, bytes)
V = TypeVar("V")

OTHER_COMMITS = 10
"""At how many commits besides HEAD the trees are proved."""

DIFFERENCES_SHOWN = 20

BATCH_SIZE = 250
"""How many programs are run together: what a store can make one commit, or one exchange with a server, of."""

STORES = Path(__file__).resolve().parent.parent / "var" / "git-history"
"""Where the stores are that nobody names, each called by a digest of its repository's path."""

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


def in_batches(
    bars: Bars, task: str, names: Sequence[str], run_batch: Callable[[Sequence[str]], Iterable[A]]
) -> list[A]:
    """What comes of names that are taken some at a time, so that a store may answer those together."""
    bars.begin(task, len(names))
    values: list[A] = []
    for first in range(0, len(names), BATCH_SIZE):
        batch = names[first : first + BATCH_SIZE]
        values += run_batch(batch)
        bars.show(Progressed(task, first + len(batch)))
    return values


def import_history(store: Store, bars: Bars, repository: Repository, head: str) -> int:
    """Record each commit that HEAD reaches and the store does not hold yet, and return how many it held before.

    Each is one transaction; a store may make one commit of a batch. Parents come before their children in every run,
    so wherever one ended, the store holds the parents of what it holds.
    """
    held = set(store.run(kv.keys(COMMIT)))
    missing = [commit for commit in repository.commit_ids(head) if COMMIT + commit not in held]
    bars.begin("commits", len(held) + len(missing))
    bars.show(Progressed("commits", len(held)))
    # Closed where a batch fails, so that git ends then, and not when the error is forgotten.
    with closing(repository.commits(missing)) as commits:
        numbered = enumerate(commits, len(held) + 1)
        while batch := list(islice(numbered, BATCH_SIZE)):
            store.run_many(record(commit, number) for number, commit in batch)
    return len(held)


def answer(store: Store, bars: Bars, question: Question) -> Answers:
    """What the store says, from its projections and nothing else."""
    streams = store.run(log.streams(PATHS))
    facts = in_batches(
        bars, "paths", streams, lambda batch: store.run_many(facts_of(question, stream) for stream in batch)
    )
    return answers_of(question, facts, store.run(view.value(question.authors)))


def answer_compacted(store: Store, bars: Bars, question: Question) -> tuple[Answers, int]:
    """What the store says once snapshots stand for events, and for how many. It is a copy that loses them."""
    dropped = 0

    def answer_from_copy(streams: Sequence[str]) -> list[PathFacts]:
        nonlocal dropped
        drafts = store.run_many(drafts_of(stream) for stream in streams)
        with open_store("memory:") as copy:
            copy.run_many(log.append_many(*pair) for pair in zip(streams, drafts, strict=True))
            dropped += sum(copy.run_many(compact_path(question, stream) for stream in streams))
            return copy.run_many(facts_of(question, stream) for stream in streams)

    facts = in_batches(bars, "compaction", store.run(log.streams(PATHS)), answer_from_copy)
    return answers_of(question, facts, store.run(refreshed_authors(question))), dropped


def current_blobs(store: Store, bars: Bars, question: Question) -> dict[str, str]:
    """Let the subscription catch up, and return what it keeps in kv: a blob id for each path's name."""
    bars.begin("current blobs", (head := store.run(log.head())))
    prefix = store.run(keep_current_blobs(question))
    bars.show(Progressed("current blobs", head))
    keys = store.run(kv.keys(prefix))
    blobs = in_batches(bars, "kv", keys, lambda batch: store.run_many(kv.get(key) for key in batch))
    return {key.removeprefix(prefix): blob for key, blob in zip(keys, blobs, strict=True)}


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
        expected = {name_of(path): blob_of(leaf) for path, leaf in repository.tree(head).items()}
        self.differences += differing("blob id in kv", expected, found, str)

    def compare_answers(self, before: Answers, after: Answers) -> None:
        """What a compacted store says must be what the whole one said."""
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
    # Text, so that brackets in a name are not markup.
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

EXIT_CODES: Mapping[type[Exception], int] = {
    GitError: 2,
    CallerError: 2,
    CorruptStore: 1,
    StoreUnavailable: 3,
    UncertainOutcome: 3,
}


@app.command()
def main(
    repo: Annotated[str, typer.Argument(help="The repository, or any directory in it.")] = ".",
    at: Annotated[str | None, typer.Option(help="Show and prove the tree at this commit, too.")] = None,
    top: Annotated[int, typer.Option(min=1, help="How many rows to show.")] = 10,
    full: Annotated[bool, typer.Option("--full", help="Show every path of a tree.")] = False,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where the events are kept: file:PATH, or any other URL of a store.",
            show_default="one file store for each repository, under var/git-history",
        ),
    ] = None,
) -> None:
    """Turn a git repository's history into events, answer from projections, and prove the answers against git.

    The events are kept: run again, also after a run that was killed, it records only what is missing.

    Exit codes:
      0  all is proved
      1  a difference was found, or the store is damaged
      2  what was asked for cannot be done
      3  the store cannot be used now: it is open elsewhere, or its disk refuses
    130  interrupted
    141  who read the output has gone
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that cannot show a character shall not end the run.
        sys.stdout.reconfigure(errors="backslashreplace")
    url = store
    try:
        repository = Repository(repo)
        url = default_store(repository) if store is None else store
        proof, newest = tell(repository, url, at, top, None if full else top)
        proof.report()
        if newest is not None:
            show_how_to_look(url, newest)
        sys.stdout.flush()
    except (GitError, PersistError, ExceptionGroup) as error:
        end_by(error)
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


def end_by(error: Exception) -> NoReturn:
    """End by an error, or by the first of those of programs that ran together. A bug goes on as it is."""
    first = error
    while isinstance(first, ExceptionGroup):
        first = first.exceptions[0]
    for kind, exit_code in EXIT_CODES.items():
        if isinstance(first, kind):
            end(printable(str(first)), exit_code)
    raise error


def default_store(repository: Repository) -> str:
    """The URL of the store that is a repository's own, and another one once a shallow clone was deepened."""
    key = repr((repository.directory(), repository.shallow_commits()))
    return f"file:{STORES / hashlib.sha256(key.encode()).hexdigest()[:16]}"


def open_history(url: str, bars: Bars, shallow_commits: list[str]) -> Store:
    """Open the store. Raises `InvalidRequest` if it holds a history that ends elsewhere, as a shallow clone's does."""
    try:
        store = open_store(url, effects={Progressed: bars.show})
    except OSError as error:
        raise StoreUnavailable(str(error.strerror)) from error
    try:
        if not store.run(is_history_cut_off_at(shallow_commits)):
            raise InvalidRequest(f"{url} was filled from a clone of another depth: give another store")
    except BaseException:
        store.close()
        raise
    return store


class Newest(NamedTuple):
    """What stands in the store for the newest commit that was recorded: an event, and a key's name and revision."""

    event: Event
    key: str
    revision: int


def newest_written(store: Store) -> Newest | None:
    """What to look at next; None where there are no commits."""
    for event in store.run(log.read_back(COMMITS, limit=1)):
        key = COMMIT + event.data["id"]
        entry = store.run(kv.entry(key))
        if entry is not None:
            return Newest(event, key, entry.revision)
    return None


def show_how_to_look(url: str, newest: Newest) -> None:
    """Say what was written, and which commands show it. On stderr, since it is no answer about the repository."""
    event, key, revision = newest
    where = f"number {event.seq} of the stream {event.stream}, position {event.position}"
    lines = [
        f"an event in it: {event.type}, {where}: {printable(event.data['subject'])}",
        f"a key in it: {key}, revision {revision}",
    ]
    if url.startswith("memory:"):
        lines.append("it was in memory, and is gone: --store file:PATH keeps it, to be looked at")
    else:
        script = os.path.relpath(Path(sys.executable).with_name("persist-effects"))
        lines += [
            "look at them:",
            shlex.join((script, "read", url, event.stream, "--backwards", "--limit", "3")),
            shlex.join((script, "get", url, key)),
            shlex.join((script, "streams", url, "--prefix", PATHS, "--counts", "--limit", "10")),
        ]
    for line in lines:
        typer.echo(line, err=True)


def tell(
    repository: Repository, url: str, at: str | None, top: int, tree_limit: int | None
) -> tuple[Proof, Newest | None]:
    """Import, subscribe, answer, compact, answer again; print the answers.

    Returns how they compare with git, and what was written that may be looked at next.
    """
    head = repository.head()
    shown = {} if head is None else {"HEAD": head}
    if at is not None:
        shown[at] = repository.reachable_commit(at, head)
    proof, bars = Proof(), Bars()
    with open_history(url, bars, repository.shallow_commits()) as store, bars.progress:
        held = import_history(store, bars, repository, head) if head is not None else 0
        question = store.run(ask_about(list(shown.values()), OTHER_COMMITS))
        before = answer(store, bars, question)
        answers, dropped = answer_compacted(store, bars, question)
        proof.compare_answers(before, answers)
        proof.compare_trees(repository, answers)
        if head is not None:
            proof.compare_commits(repository, head, answers)
            proof.compare_current_blobs(repository, head, current_blobs(store, bars, question))
        recorded = store.run(log.last_seq(COMMITS)) - held
        newest = newest_written(store)
    typer.echo(f"{url}: {counted(recorded, 'commit')} recorded, {held} held before", err=True)
    if head is None:
        typer.echo("there are no commits yet, and nothing to tell of")
    for name, commit in shown.items():
        print_tree(f"tree at {printable(name)}, {commit[:12]}", answers.tree(commit), tree_limit)
    print_table("Most changed paths", ("path", "changes", "authors"), most_changed_paths(answers, top))
    columns = ("author", "commits", "changes", "paths", "changed most")
    print_table("Who changed what", columns, who_changed_what(answers, top))
    typer.echo(f"compacted, in a copy: snapshots stand for {counted(dropped, 'event')}")
    return proof, newest


if __name__ == "__main__":
    app()
