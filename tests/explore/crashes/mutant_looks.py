"""What the file engine passes and wrong ones do not: crashes explored, damage, failing disks, two writers.

Where a mistake shows in what a loss of power brings to light, `explore_crashes` is the look that finds it. The others
are as small as they can be.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from interpreters.disk import requests as disk
from interpreters.disk.crashing import Bound, CrashDisk, DiskFault, Image
from interpreters.disk.real import RealDisk
from interpreters.explore import Compact, Reopen, explore_crashes
from interpreters.explore.crashes.simulated import Contents, SimulatedStore, contents
from interpreters.explore.crashes.workload import Setting, Workload
from interpreters.stores.file import gathering
from interpreters.stores.file.beside_writer import ReaderEngine
from interpreters.stores.file.upkeep.backup import backup_store
from interpreters.stores.file.upkeep.two_disks import two_disks
from persist_effects import Draft, kv, log, snapshot
from persist_effects.errors import CorruptStore, InvalidRequest, PersistError, Truncated
from persist_effects.machine import Effect, perform, run, through
from persist_effects.projection import State
from persist_effects.requests import Append, KvPut, TruncateThrough
from persist_effects.transaction import transact

LOST = "an acknowledged commit is lost"
CLOSED = "the store does not open"
HALF = "half a commit, or what was dropped or overwritten, is there"
UNUSABLE = "the store is not usable afterwards"
ANSWER = "a wrong answer"


CHANGED = "what lies in the place of the store is changed"
WRONG = "damage is passed over in silence"
INVARIANT = "invariant"
ANYTHING = "what was never written is there"
EARLY = "a reader was shown what did not survive"
NO_DAMAGE = "a failing read is taken for damage"


class Caught(NamedTuple):
    """What was wrong, by which class of fault it was found, and in how many states or cases it was looked for."""

    kind: str
    by: tuple[str, ...]
    states: int


class Look(NamedTuple):
    """Something that a sound engine passes. ``run(directory)`` says what it found; the kind is empty if nothing."""

    name: str
    run: Callable[[Path], Caught]


# Workloads


def appends() -> Effect[None]:
    for number in range(3):
        yield from log.append("orders/1", "placed", {"total": number})


def one_append() -> Effect[None]:
    yield from log.append("orders/1", "placed", {"total": 1})


def reopened() -> Effect[None]:
    yield from log.append("orders/1", "placed", 1)
    yield from perform(Reopen())
    yield from log.append("orders/1", "placed", 2)


def reopened_twice() -> Effect[None]:
    yield from log.append_many("orders/1", [Draft("placed", 1), Draft("placed", 2)])
    yield from perform(Reopen())
    yield from log.append("orders/1", "placed", 3)
    yield from perform(Reopen())


def rolled_over() -> Effect[None]:
    for number in range(4):
        yield from log.append("orders/1", "placed", {"text": f"{number}" * 60})


def fills_two_segments() -> Effect[None]:
    for number in range(2):
        yield from log.append("orders/1", "placed", f"{number}" * 120)


def transactions() -> Effect[None]:
    for number in range(2):
        draft = Draft("placed", {"total": number})
        yield from transact(Append("orders/1", (draft, draft)), KvPut("total", number))


def one_after_another(text: str) -> Callable[[], Effect[None]]:
    def program() -> Effect[None]:
        yield from log.append(f"orders/{text}", "placed", text * 8)

    return program


TOGETHER = [one_after_another(text) for text in "abc"]


def probe_event() -> Effect[None]:
    # As long as what is written to a store that was recovered, so that what stands behind the one stands behind both.
    yield from log.append("probe of a recovered store", "probed", {"is": "there"})


def probe_key() -> Effect[None]:
    yield from kv.put("probe of a recovered store", 1)


BEHIND_A_PROBE = [probe_event, probe_key, one_after_another("z")]


def compacted() -> Effect[None]:
    for number in range(3):
        yield from log.append("orders/1", "placed", number)
    yield from log.append("orders/2", "placed", 1)
    yield from kv.put("kept", 1)
    yield from kv.put("put twice", 1)
    yield from kv.put("put twice", 2)
    yield from kv.put("deleted", 1)
    yield from kv.delete("deleted")
    yield from log.truncate_through("orders/1", 2)
    yield from log.truncate_through("orders/2", 1)
    yield from perform(Compact())
    yield from perform(Reopen())
    yield from log.append("orders/2", "placed", 2)
    yield from kv.put("deleted", 2)


def reopens_in_doubt() -> Effect[None]:
    for number in range(3):
        try:
            yield from log.append("orders/1", "placed", number)
        except PersistError:
            yield from perform(Reopen())


def goes_on_in_doubt() -> Effect[None]:
    for number in range(3):
        try:
            yield from log.append(f"orders/{number}", "placed", number)
        except PersistError:
            continue


def what_was_acknowledged_is_there(acked: Sequence[tuple[Any, Any]], maybe: Sequence[Any]) -> Effect[None]:
    for request, answer in acked:
        assert (yield from log.last_seq(request.stream)) >= answer.last_seq


def tries_twice() -> Effect[None]:
    try:
        yield from log.append("orders/1", "placed", 1)
    except PersistError:
        yield from log.append("orders/1", "placed", 1)


def tries_once() -> Effect[None]:
    try:
        yield from log.append("orders/2", "placed", 2)
    except PersistError:
        return


def pays_once() -> Effect[None]:
    yield from log.append_once("orders/1", "payment 77", "paid", 5)


def is_paid_once(acked: Sequence[tuple[Any, Any]], maybe: Sequence[Any]) -> Effect[None]:
    yield from pays_once()
    paid = yield from log.read("orders/1")
    assert len(paid) == 1, f"paid {len(paid)} times"


def counts() -> Effect[None]:
    for number in (1, 2):
        yield from log.append("orders/1", "placed", number)
        yield from snapshot.write("orders", State(number, number), stream="orders/1")


def counts_what_is_there(acked: Sequence[tuple[Any, Any]], maybe: Sequence[Any]) -> Effect[None]:
    covered, last = (yield from snapshot.covered_seq("orders")), (yield from log.last_seq("orders/1"))
    assert covered <= last, f"the snapshot covers {covered} events, and {last} are there"


def summed() -> Effect[None]:
    for number in (1, 2):
        yield from log.append("orders/1", "placed", number)
    drop = TruncateThrough("orders/1", 2)
    yield from snapshot.write("sum", State(3, 2), stream="orders/1", drop=drop)


def adds_up(acked: Sequence[tuple[Any, Any]], maybe: Sequence[Any]) -> Effect[None]:
    try:
        yield from snapshot.replay("sum", "orders/1", lambda total, event: total + event.data, 0)
    except Truncated as error:
        raise AssertionError("events were dropped that no snapshot covers") from error


# Looks: explorations


def exploring(name: str, workload: Any, check: Any = None, **options: Any) -> Look:
    """Explore the crashes of a workload."""

    def look(directory: Path) -> Caught:
        report = explore_crashes(workload, check, **{"depth": 1, **options})
        kinds = [failure.kind for failure in report.failures]
        faults = dict.fromkeys(cell.fault for cell in report.cells if cell.failures)
        return Caught("; ".join(kinds), tuple(faults) or ("answers",) * bool(kinds), report.checked)

    return Look(name, look)


def gathering_pairs(look: Look) -> Look:
    """The same look, where two small segments already become one."""

    def pairs(directory: Path) -> Caught:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(gathering, "TOGETHER", 2)
            return look.run(directory)

    return look._replace(run=pairs)


FINE = Bound(tear_bytes=8)
APPENDS = exploring("appends", appends)
LOSING = exploring("appends, lost writes", appends, faults=("lost write",), segment_bytes=1024)
APPENDS_TWICE = exploring("an append, two crashes", one_append, depth=2)
REOPENED = exploring("reopened", reopened)
GATHERED = gathering_pairs(
    exploring("reopened twice, segments gathered", reopened_twice, bound=Bound(tear_bytes=0, subsets=4))
)
ROLLED_OVER = exploring("rolled over", rolled_over, segment_bytes=400)
INTERRUPTED = exploring("an append, interrupted", one_append, faults=["interrupt after"])
ROLLED_OVER_INTERRUPTED = exploring(
    "rolled over, interrupted", fills_two_segments, faults=["interrupt after"], segment_bytes=400
)
INDEXED = exploring("rolled over, torn finely", rolled_over, segment_bytes=400, bound=FINE)
TOGETHER_TORN = exploring("a batch, torn finely", TOGETHER, bound=FINE, segment_bytes=1024)
BATCH_BEFORE_A_PROBE = exploring("a batch, and the same sizes after it", BEHIND_A_PROBE)
TRANSACTIONS = exploring("transactions", transactions)
COMPACTED = exploring("compacted", compacted, segment_bytes=700, bound=Bound(tear_bytes=0, subsets=64))
DOUBT = exploring("reopens in doubt, EIO", reopens_in_doubt, faults=("EIO",))
NO_DOUBT = exploring(
    "goes on in doubt, EIO", goes_on_in_doubt, what_was_acknowledged_is_there, faults=("EIO",), segment_bytes=1024
)
RETRIED = exploring("one of two tries again, EIO", [tries_twice, tries_once], faults=("EIO",), segment_bytes=1024)
PAID = exploring("pays once", pays_once, is_paid_once)
COUNTED = exploring("counts", counts, counts_what_is_there)
SUMMED = exploring("sums up", summed, adds_up)


# Looks: damage


class Built(NamedTuple):
    """A store's files, and what it showed after each commit."""

    image: Image
    history: list[Contents]


def shown_by(image: Mapping[str, bytes], boot: int = 9) -> Contents:
    return run(contents(), SimulatedStore(CrashDisk(image), boot=boot, segment_bytes=1024).handlers)


def built(texts: str, *, is_closed: bool, boot: int = 1, image: Image | None = None) -> Built:
    on = CrashDisk(image)
    store = SimulatedStore(on, boot=boot, segment_bytes=1024)
    history = [run(contents(), store.handlers)]
    for text in texts:
        store.commit([Append("orders/1", (Draft("placed", text * 8),))])
        history.append(run(contents(), store.handlers))
    if is_closed:
        store.close()
    return Built(on.image(), history)


def judged(images: Iterator[tuple[str, Image]], allowed: Sequence[Contents]) -> Caught:
    """Open damaged stores: each must show what is allowed, or refuse with `CorruptStore`."""
    by: dict[str, None] = {}
    count = 0
    for by_whom, image in images:
        count += 1
        try:
            is_right = shown_by(image) in allowed
        except CorruptStore:
            is_right = True
        except Exception:
            # Not an answer, but whoever asked learns nothing of what to do either.
            is_right = False
        if not is_right:
            by[by_whom] = None
    return Caught(WRONG if by else "", tuple(by), count)


def flipped(image: Image, path: str) -> Iterator[tuple[str, Image]]:
    data = image[path].rstrip(b"\0")
    for offset in range(len(data)):
        yield "bit rot", {**image, path: data[:offset] + bytes([data[offset] ^ 0x41]) + image[path][offset + 1 :]}


def flips_in_the_active_segment(directory: Path) -> Caught:
    store = built("abc", is_closed=False)
    # Of the last commit nothing says yet that it ever was on the disk.
    return judged(flipped(store.image, "log/00000001.seg"), store.history[-2:])


def flips_in_a_sealed_segment(directory: Path) -> Caught:
    store = built("abc", is_closed=True)
    without_index = {path: data for path, data in store.image.items() if not path.endswith(".idx")}

    def images() -> Iterator[tuple[str, Image]]:
        yield from flipped(store.image, "log/00000001.seg")
        for _, image in flipped(without_index, "log/00000001.seg"):
            yield "bit rot, and no index", image

    return judged(images(), store.history[-1:])


def mixes_two_histories(directory: Path) -> Caught:
    """Files of a store in the place of those of its copy, which went another way since."""
    before = built("a", is_closed=True).image
    one, other = (built(text, is_closed=True, boot=boot, image=before) for text, boot in (("b", 2), ("c", 3)))
    # The first segment of each boot holds nothing but its frames.
    segment, index = "log/00000002.seg", "log/00000002.idx"

    def images() -> Iterator[tuple[str, Image]]:
        yield "another's segment", {**one.image, segment: other.image[segment]}
        without = {path: data for path, data in one.image.items() if path != index}
        yield "another's segment, and no index", {**without, segment: other.image[segment]}
        yield "another's index", {**one.image, index: other.image[index]}
        yield "another's segment and index", {**one.image, **{path: other.image[path] for path in (segment, index)}}

    return judged(images(), one.history[-1:])


FLIPS = Look("bytes flipped, active segment", flips_in_the_active_segment)
SEALED_FLIPS = Look("bytes flipped, sealed segment", flips_in_a_sealed_segment)
MIXED = Look("files of two histories", mixes_two_histories)


# Looks: more than one process, and other disks


def recovers_on_a_failing_disk(directory: Path) -> Caught:
    """Each request of a recovery fails, once or for good: nothing is lost by it, then and after a loss of power."""
    store = built("abc", is_closed=False)
    quiet = CrashDisk(store.image)
    SimulatedStore(quiet, boot=2, segment_bytes=1024)
    by: dict[str, str] = {}
    count = 0
    for number in range(quiet.count):
        for fault in (DiskFault(kind, is_for_good) for kind in ("EIO", "ENOSPC") for is_for_good in (False, True)):
            on = CrashDisk(store.image, faults={number: fault})
            try:
                opened = run(contents(), SimulatedStore(on, boot=2, segment_bytes=1024).handlers)
            except PersistError:
                opened = store.history[-1]
            states = on.states("posix", Bound(tear_bytes=0, subsets=16))
            found = [
                opened,
                *(shown_by(image) for image in {str(state.image): state.image for state in states}.values()),
            ]
            count += len(found)
            if any(shown != store.history[-1] for shown in found):
                by[f"{fault.kind}, {'for good' if fault.is_for_good else 'once'}"] = LOST
    return Caught("; ".join(dict.fromkeys(by.values())), tuple(by), count)


def two_writers(directory: Path) -> Caught:
    """A second writer comes, whom no lock keeps out; when the first rolls over, compacts or closes, nothing is lost."""
    last_words: list[Callable[[SimulatedStore], None]] = [
        lambda first: first.drive(first.engine.roll_over()),
        SimulatedStore.compact,
        SimulatedStore.close,
    ]
    lost = 0
    for say in last_words:
        on = CrashDisk(built("a", is_closed=True).image)
        first = SimulatedStore(on, boot=2, segment_bytes=1024)
        first.commit([Append("orders/2", (Draft("placed", 1),))])
        # So that its segment stays, and it does not learn from a missing file that another writer came.
        first.drive(first.engine.mark())
        second = SimulatedStore(on, boot=3, segment_bytes=1024)
        second.commit([Append("orders/3", (Draft("placed", 2),))])
        wanted = run(contents(), second.handlers)
        with suppress(PersistError):
            say(first)
        try:
            lost += shown_by(on.image()) != wanted
        except PersistError:
            lost += 1
    return Caught(LOST, ("two writers",), len(last_words)) if lost else Caught("", (), len(last_words))


def backup_of(image: Image) -> Image:
    """What a backup of these files has: the same UUID and epoch, and a manifest of its own."""
    target = CrashDisk()
    run(backup_store(), two_disks(CrashDisk(image).handlers, target.handlers))
    return target.image()


def opens(on: CrashDisk) -> SimulatedStore:
    return SimulatedStore(on, boot=2, segment_bytes=1024)


def commits(on: CrashDisk, text: str = "d") -> Callable[[], Any]:
    first = opens(on)
    first.commit([Append("orders/2", (Draft("placed", 1),))])
    return lambda: first.commit([Append("orders/2", (Draft("placed", text),))])


def looks_after(on: CrashDisk, deed: Callable[[SimulatedStore], None]) -> Callable[[], Any]:
    first = opens(on)
    first.commit([Append("orders/2", (Draft("placed", 1),))])
    return lambda: deed(first)


DEEDS: dict[str, Callable[[CrashDisk], Callable[[], Any]]] = {
    "opens": lambda on: lambda: opens(on),
    "commits": commits,
    "rolls over": lambda on: commits(on, "d" * 900),
    "compacts": lambda on: looks_after(on, SimulatedStore.compact),
    "marks": lambda on: looks_after(on, lambda first: first.drive(first.engine.mark())),
    "syncs": lambda on: looks_after(on, lambda first: first.drive(first.engine.sync())),
    "closes": lambda on: looks_after(on, SimulatedStore.close),
}


def changes_hands(directory: Path) -> Caught:
    """The files give place to a backup of theirs, before a deed of whoever holds them, or in its midst.

    What lies there then stays as it is, and nothing is acknowledged that is not in it.
    """
    kinds: dict[str, None] = {}
    count = 0
    for name, prepare in DEEDS.items():
        # Whoever opens only afterwards opens what lies there then.
        for moment in range(name == "opens", 100):
            on = CrashDisk(built("abc", is_closed=False).image)
            deed = prepare(on)
            put = change_at(on, moment)
            try:
                deed()
                is_told = name in {"commits", "rolls over"}
            except PersistError:
                is_told = False
            if not put:
                break
            count += 1
            kinds.update({CHANGED: None} if on.image() != put[0] else {})
            kinds.update({LOST: None} if is_told else {})
    return Caught("; ".join(kinds), ("changed hands",) * bool(kinds), count)


def change_at(on: CrashDisk, moment: int) -> list[Image]:
    """Have a disk change hands now, or later just before it is asked for so many times whether it did.

    Once it has, what was put there is in the list.
    """
    put: list[Image] = []
    left = iter(range(moment - 1, -1, -1))

    def change() -> None:
        put.append(backup_of(on.image()))
        on.change_hands(put[0])

    def before(number: int, request: Any) -> None:
        if isinstance(request, disk.CheckHeld) and next(left, None) == 0:
            change()

    on.watch(before)
    if moment == 0:
        change()
    return put


def writes_by_halves(directory: Path) -> Caught:
    """A system that writes half of what it is given, and says so."""
    pwrite = os.pwrite
    with pytest.MonkeyPatch.context() as patch, closing(RealDisk(directory / "store")) as on:
        patch.setattr(os, "pwrite", lambda number, data, offset: pwrite(number, data[: len(data) // 2 or 1], offset))
        SimulatedStore(on, boot=1, segment_bytes=4096).commit([Append("orders/1", (Draft("placed", 1),))])
    with closing(RealDisk(directory / "store")) as on:
        try:
            shown = run(contents(), SimulatedStore(on, boot=2, segment_bytes=4096).handlers)
        except CorruptStore:
            return Caught(CLOSED, ("short write",), 1)
    return Caught("", (), 1) if shown.position == 1 else Caught(LOST, ("short write",), 1)


def reads_fail(directory: Path) -> Caught:
    """A system on which one read fails, on the way through a recovery."""
    pread = os.pread
    found = []
    store = built("abc", is_closed=False)
    for failing in range(40):
        root = directory / str(failing)
        (root / "log").mkdir(parents=True)
        for path in [path for path in store.image if not path.endswith("/")]:
            (root / path).write_bytes(store.image[path])
        calls = iter(range(1 << 30))

        def read(number: int, size_bytes: int, offset: int, calls: Any = calls, failing: int = failing) -> bytes:
            if next(calls) == failing:
                raise OSError(5, "Input/output error")
            return pread(number, size_bytes, offset)

        with pytest.MonkeyPatch.context() as patch, closing(RealDisk(root)) as on:
            patch.setattr(os, "pread", read)
            try:
                shown = run(contents(), SimulatedStore(on, boot=2, segment_bytes=1024).handlers)
            except CorruptStore:
                found.append(NO_DAMAGE)
            except PersistError:
                continue
            else:
                found += [LOST] * (shown != store.history[-1])
    kinds = dict.fromkeys(found)
    return Caught("; ".join(kinds), ("EIO on read",) * bool(kinds), 40)


def without_allocation(image: Image | None = None) -> CrashDisk:
    """A disk that can make no room beforehand: a file grows when it is written."""
    on = CrashDisk(image)
    on.handlers = {**on.handlers, disk.Allocate: lambda request: None}
    return on


def grows_over_a_removed_segment(directory: Path) -> Caught:
    """A segment's number comes again after a compaction that was interrupted, and the file grows over the old bytes."""
    on = without_allocation()
    store = SimulatedStore(on, boot=1, segment_bytes=1024)
    for text in "abc":
        store.commit([Append("orders/1", (Draft("placed", text * 8),))])
    store.drive(store.engine.roll_over())
    store.drive(store.engine.compaction().copy())
    on = without_allocation(on.image())
    store = SimulatedStore(on, boot=2, segment_bytes=1024)
    allowed = [run(contents(), store.handlers)]
    images: list[Image] = []

    def before(number: int, request: Any) -> None:
        images.extend(state.image for state in on.states("writeback"))

    on.watch(before)
    store.commit([Append("orders/1", (Draft("placed", "d" * 8),))])
    allowed.append(run(contents(), store.handlers))
    wrong = judged((("stale bytes", image) for image in images), allowed)
    return wrong._replace(kind=ANYTHING if wrong.kind else "")


def reads_along(directory: Path) -> Caught:
    """Whatever a process that reads beside the writer is shown, at any time, survives a loss of power."""
    count, found = 0, ""

    def at(workload: Workload, number: int, request: Any) -> None:
        nonlocal count, found
        try:
            shown = workload.history.index(
                run(shown_along(), dict.fromkeys(workload.disk.handlers, workload.disk.answer))
            )
        except InvalidRequest:
            return
        for state in workload.disk.states("posix", Bound(tear_bytes=0)):
            count += 1
            if workload.history.index(shown_by(state.image)) < shown:
                found = EARLY

    Workload([appends], Setting(segment_bytes=1024), at).run()
    return Caught(found, ("lost",) * bool(found), count)


def shown_along() -> Effect[Contents]:
    engine = ReaderEngine()
    yield from engine.open()
    return (yield from through(contents(), engine.answer))


RECOVERING = Look("recovers on a failing disk", recovers_on_a_failing_disk)
TWO_WRITERS = Look("two writers", two_writers)
CHANGES_HANDS = Look("the directory changes hands", changes_hands)
HALVES = Look("short writes", writes_by_halves)
FAILING_READS = Look("failing reads", reads_fail)
STALE = Look("a number again, stale bytes", grows_over_a_removed_segment)
ALONG = Look("a reader beside the writer", reads_along)
