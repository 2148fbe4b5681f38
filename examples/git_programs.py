"""The pure part of `git_history`: its events, the steps of its projections, and programs that run on any store.

Each commit becomes one event in the stream ``commits``, and one in the stream of each path that it changed, all in
one transaction. A path's change is told against the commit's first parent. So the tree at a commit is a fold over
those events of each path whose commit stands on the first-parent line that leads to it: the line is what a merge
does not confuse, and every commit has one.

Parents are recorded before their children, in every run, and nothing is dropped, for the next question may be about
any commit. So a store may hold commits that HEAD reaches no more: no answer regards them.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

import msgspec
from git_reader import Commit

from persist_effects import (
    Conflict,
    Draft,
    Effect,
    Event,
    KvDelete,
    KvPut,
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
from persist_effects.requests import PAGE_SIZE, Append, Write

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


HISTORY = Schema[Committed | Written | Removed]({"committed": Committed, "written": Written, "removed": Removed})

COMMITS = "commits"
PATHS = "path/"

# And keys.

COMMIT = "commit/"
CURRENT_BLOBS = "blob/"
FOLLOWED = "followed"
SHALLOW_COMMITS = "shallow-commits"

# What a name may take, less the longest prefix that is put before one here: "snapshot/facts/path/", or "blob/1/".
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
        KvPut(COMMIT + commit.id, number, expected=0),
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


def is_history_cut_off_at(shallow_commits: list[str]) -> Effect[bool]:
    """Whether the commits in the store were recorded from a history that ends at these. A new store takes them on.

    Git tells a shallow clone's last commits without their parents: recorded so, they would be wrong in another clone.
    """
    yield from kv.put_expect(SHALLOW_COMMITS, 0, shallow_commits)
    return bool((yield from kv.get(SHALLOW_COMMITS)) == shallow_commits)


class Followed(msgspec.Struct, frozen=True):
    """Whose line the keys under ``blob/<turn>/`` follow: that of a HEAD, seen when so many commits were recorded."""

    turn: int
    head: str
    commits: int


def take_up_line(question: "Question") -> Effect[int]:
    """Turn to the line that leads to HEAD, and return whose turn it is to follow it.

    The follower can go on where HEAD moved along its line by commits that were recorded since. Where HEAD moved to
    another line, or to commits that the follower has passed over, another takes its turn, from the first event on.
    """
    commits = yield from log.last_seq(COMMITS)
    found = yield from kv.get(FOLLOWED)
    before = None if found is None else msgspec.convert(found, Followed)
    turn = 1 if before is None else before.turn
    if before is not None and question.newest_on_line(before.commits) != before.head:
        turn += 1
    yield from kv.put(FOLLOWED, Followed(turn, question.targets[0], commits))
    return turn


def keep_current_blobs(question: "Question") -> Effect[str]:
    """Bring kv up to date: under a prefix, which is returned, each path of the tree at HEAD with its blob id."""
    turn = yield from take_up_line(question)
    prefix = f"{CURRENT_BLOBS}{turn}/"

    def on_change(event: Event) -> Effect[Sequence[Write]]:
        change = HISTORY.lift(event).data
        assert not isinstance(change, Committed), "commits are in a stream of their own"
        key = prefix + event.stream.removeprefix(PATHS)
        if event.position % 1_000 == 0:
            yield from perform(Progressed("current blobs", event.position))
        if not question.lines.get(change.commit, 0) & 1:
            return []
        return [KvPut(key, blob_of(change.leaf))] if isinstance(change, Written) else [KvDelete(key)]

    yield from follow(f"current-blobs-{turn}", PATHS, on_change, batch=1_000)
    yield from forget(CURRENT_BLOBS, but=prefix)
    return prefix


def forget(prefix: str, but: str) -> Effect[None]:
    """Delete the keys under a prefix but those under a longer one."""
    keys = [key for key in (yield from kv.keys(prefix)) if not key.startswith(but)]
    for first in range(0, len(keys), PAGE_SIZE):
        yield from transact(*(KvDelete(key) for key in keys[first : first + PAGE_SIZE]))


def blob_of(leaf: str) -> str:
    """A leaf's blob id, without the mode."""
    return leaf.partition(" ")[2]


# Projections

AUTHORS = "authors/"
FACTS = "facts/"


class PathFacts(msgspec.Struct, frozen=True):
    """What a path's stream comes to: its leaf in the tree at each target, and how often each author changed it.

    What a merge changes against its first parent was changed by its other parents before, so it counts for nobody.
    """

    path: bytes
    leaves: list[str | None]
    changes: dict[str, int]


class Link(NamedTuple):
    """A commit among its parents, and the sequence number at which it is recorded."""

    id: str
    parents: list[str]
    seq: int


class Question:
    """The commits whose trees are asked for, HEAD the first, and the projections that answer.

    ``links`` are the commits that HEAD reaches, children before their parents. ``lines[commit]`` has bit k set where
    the commit stands on the first-parent line to ``targets[k]``; what HEAD does not reach is not in it.
    """

    def __init__(self, targets: Sequence[str], links: Sequence[Link]) -> None:
        self.targets = tuple(targets)
        self.lines = {link.id: 0 for link in links}
        for k, target in enumerate(targets):
            self.lines[target] = self.lines.get(target, 0) | 1 << k
        for link in links:
            if link.parents and (parent := link.parents[0]) in self.lines:
                self.lines[parent] |= self.lines[link.id]
        self._links = links
        self.seed = PathFacts(b"", [None] * len(targets), {})
        self.step = HISTORY.typed(self._step)
        # A view of its own for each HEAD: which commits count is another matter for another.
        self.authors = View[dict[str, int]](self._authors_name(), COMMITS, HISTORY.typed(self._count_author), {})

    def newest_on_line(self, through: int) -> str | None:
        """The commit that was the last on HEAD's line when so many commits were recorded, None if none was."""
        return next((link.id for link in self._links if link.seq <= through and self.lines[link.id] & 1), None)

    def _authors_name(self) -> str:
        return AUTHORS + (self.targets[0] if self.targets else "none")

    def _count_author(self, commits: dict[str, int], event: Event) -> dict[str, int]:
        """The step of the view of who made how many commits. Copying the dict keeps it pure; authors are few."""
        return _one_more(commits, event.data.author) if event.data.id in self.lines else commits

    def _step(self, facts: PathFacts, event: Event) -> PathFacts:
        change = event.data
        bits = self.lines.get(change.commit)
        if bits is None:
            return facts
        leaf = change.leaf if isinstance(change, Written) else None
        leaves = [leaf if bits >> k & 1 else old for k, old in enumerate(facts.leaves)] if bits else facts.leaves
        changes = facts.changes if change.in_merge else _one_more(facts.changes, change.author)
        return PathFacts(change.path, leaves, changes)


def _one_more(counts: dict[str, int], key: str) -> dict[str, int]:
    return {**counts, key: counts.get(key, 0) + 1}


# Programs that read


def links_from(head: str) -> Effect[list[Link]]:
    """The recorded commits that HEAD reaches, newest first, so that children precede their parents."""
    reached, links = {head}, list[Link]()
    last = yield from log.last_seq(COMMITS)
    while last > 0:
        first = max(1, last - PAGE_SIZE + 1)
        for event in (yield from log.read(COMMITS, after=first - 1, until=last, backwards=True)):
            commit = HISTORY.lift(event).data
            assert isinstance(commit, Committed), "a path's changes are in a stream of their own"
            if commit.id in reached:
                reached.update(commit.parents)
                links.append(Link(commit.id, commit.parents, event.seq))
        last = first - 1
    return links


def spread_commits(links: Sequence[Link], count: int) -> list[str]:
    """The ids of ``count`` commits before the newest, at even distances from the oldest on."""
    older = [link.id for link in reversed(links[1:])]
    count = min(count, len(older))
    return [older[index * len(older) // count] for index in range(count)]


def ask_about(targets: Sequence[str], others: int = 0) -> Effect[Question]:
    """The question about these commits, HEAD the first, and about some others. No commit is asked about twice."""
    if not targets:
        return Question((), ())
    links = yield from links_from(targets[0])
    return Question(list(dict.fromkeys([*targets, *spread_commits(links, others)])), links)


def facts_of(question: Question, stream: str) -> Effect[PathFacts]:
    """A path's facts, from its snapshot if there is one, and the events after it."""
    state = yield from snapshot.replay(FACTS + stream, stream, question.step, question.seed)
    return state.value


def compact_path(question: Question, stream: str) -> Effect[int]:
    """Put a snapshot in the place of a path's events, and return how many went. One alone is as small as its facts."""
    state = yield from compaction.maybe_compact(FACTS + stream, stream, question.step, question.seed, every=2)
    return 0 if state is None else state.seq


def drafts_of(stream: str) -> Effect[list[Draft]]:
    """The events of a stream, as they can be appended to that stream of another store."""
    return [Draft(event.type, event.data, event.at, event.meta) for event in (yield from log.read(stream))]


def refreshed_authors(question: Question) -> Effect[dict[str, int]]:
    """Who made how many commits, from a snapshot that is kept in place of those for other HEADs."""
    yield from view.refresh(question.authors)
    kept = f"snapshot/{question.authors.snapshot_name}"
    yield from forget(kept.removesuffix(question.authors.name) + AUTHORS, but=kept)
    return (yield from view.value(question.authors))


class Answers(msgspec.Struct, frozen=True):
    """What the projections say: the facts of every path, in the order of their paths, and each author's commits."""

    targets: tuple[str, ...]
    paths: list[PathFacts]
    commits_by_author: dict[str, int]

    def tree(self, target: str) -> dict[bytes, str]:
        """Each path's leaf in the tree of a commit that was asked about."""
        k = self.targets.index(target)
        return {facts.path: leaf for facts in self.paths if (leaf := facts.leaves[k]) is not None}


def answers_of(question: Question, facts: Iterable[PathFacts], commits_by_author: dict[str, int]) -> Answers:
    """The answers; a path that no commit before HEAD changed is not among them."""
    paths = sorted((of_path for of_path in facts if of_path.path), key=attrgetter("path"))
    return Answers(question.targets, paths, commits_by_author)
