"""A store is shipped as it is written, and restored as it was at any position: compared with the memory store."""

import errno
from itertools import count
from random import Random

import pytest
from file_disks import EngineStore
from shipped_stores import (
    SEGMENT_BYTES,
    ShippedStore,
    exported,
    histories,
    look_at_a_kept_log,
    look_at_every_crash,
    look_at_every_position,
)

from interpreters import Store
from interpreters.disk.crashing import CrashDisk
from interpreters.stores.file.upkeep.shipping import layout, pieces, shipper
from interpreters.stores.file.upkeep.shipping.restoring import Cut, restore_store
from interpreters.stores.file.upkeep.shipping.targets import DirectoryTarget, MemoryTarget, TargetTrouble, objects_on
from persist_effects import CorruptStore, Draft, InvalidRequest, run
from persist_effects.requests import Append, KvPut


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of which a segment has several."""
    for module in (layout, pieces, shipper):
        monkeypatch.setattr(module, "PIECE_BYTES", 256)


@pytest.mark.exploration
def test_every_position_of_a_history_is_restored_as_the_memory_store_was_there():
    look_at_every_position()


@pytest.mark.exploration
def test_so_it_is_where_segments_are_many_pieces(small_pieces):
    look_at_every_position()


@pytest.mark.parametrize("seed", range(4))
def test_every_revision_of_a_history_is_restored_as_the_memory_store_was_there(seed):
    for shipped in histories(seed):
        last = shipped
    since = last.shipper._catalogs[-1].since_revision
    for revision in range(since, last.counters[-1][1] + 1):
        until = next((at for at, both in enumerate(last.counters) if both[1] > revision), len(last.states))
        assert last.restored(Cut(revision=revision))[1] == last.states[until - 1]


@pytest.mark.exploration
def test_a_shipper_that_is_killed_before_any_request_loses_nothing():
    assert look_at_every_crash() > 400


@pytest.mark.exploration
def test_so_it_is_where_segments_are_many_pieces_too(small_pieces):
    assert look_at_every_crash(range(2, 3)) > 500


def test_what_was_before_a_compaction_is_kept_as_long_as_was_said():
    look_at_a_kept_log()


@pytest.mark.exploration
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_target_that_fails_any_request_once_is_gone_on_with(code):
    for number in count():
        shipped = ShippedStore(5)
        for _ in range(12):
            shipped.write()
        shipped.look()
        index = len(shipped.states) - 1
        for _ in range(8):
            shipped.write()
        shipped.close_and_open()

        due = [number + shipped.target.count]

        def fail(current, _, due=due):
            if current in due:
                due.clear()
                raise OSError(code, "refused")

        shipped.target.watch(fail)
        try:
            shipped.look()
        except TargetTrouble:
            assert shipped.restored()[1] in shipped.states[index:]
            shipped.look()
            shipped.check_newest()
        else:
            assert number > 20
            return


@pytest.mark.exploration
@pytest.mark.parametrize("action", ["compact", "close_and_open"])
def test_a_compaction_or_a_restart_between_any_two_requests_of_a_look_is_noticed(action):
    for number in count():
        shipped = ShippedStore(9)
        for _ in range(15):
            shipped.write()
        shipped.look()
        for _ in range(15):
            shipped.write()
        due = shipped.source.count + number
        done = []

        def act(current, _, shipped=shipped, due=due, done=done):
            if current >= due and not done:
                done.append(current)
                getattr(shipped, action)()

        shipped.source.watch(act)
        run(shipped.shipper.look(), shipped.handlers())
        assert shipped.restored()[1] == shipped.states[-1]
        if not done:
            assert number > 10
            return
        shipped.source.watch(lambda *_: None)
        shipped.write()
        shipped.look()
        shipped.check_newest()


def test_a_look_changes_nothing_of_the_store():
    for shipped in histories(11):
        before = shipped.source.image()
        shipped.look()
        assert shipped.source.image() == before


@pytest.mark.exploration
@pytest.mark.parametrize("seed", range(8))
def test_two_shippers_on_one_target_do_each_other_no_harm(seed, small_pieces):
    random = Random(seed)
    shipped = ShippedStore(seed, target=MemoryTarget())
    others = [shipped.new_shipper(), shipped.new_shipper()]
    index = 0
    for turn in range(6):
        for _ in range(random.randrange(1, 8)):
            shipped.write()
        if turn == 3:
            shipped.compact()
        looks = {one.look(): None for one in others}
        handlers = shipped.handlers()
        while looks:
            program = random.choice(list(looks))
            try:
                request = program.send(looks[program])
                looks[program] = handlers[type(request)](request)
            except StopIteration:
                del looks[program]
            if index:
                assert shipped.restored()[1] in shipped.states[index:]
        index = len(shipped.states) - 1
        shipped.check_newest()


def test_a_restore_goes_on_while_a_shipper_puts_other_objects_in_the_place_of_those_it_reads(small_pieces):
    for number in count():
        shipped = ShippedStore(6, target=MemoryTarget())
        for value in range(20):
            shipped.write(KvPut("color", value))
            shipped.look()
        index = len(shipped.states) - 1
        into = CrashDisk()
        handlers = {**into.handlers, **objects_on(shipped.objects)}
        program, answer, asked = restore_store(Cut(), Random(7).randbytes), None, 0
        try:
            while True:
                if asked == number:
                    for value in range(20):
                        shipped.write(KvPut("color", value))
                    shipped.close_and_open()
                    shipped.look()
                request = program.send(answer)
                answer, asked = handlers[type(request)](request), asked + 1
        except StopIteration:
            restored = EngineStore(CrashDisk(into.image()), segment_bytes=SEGMENT_BYTES, seed=77)
            assert exported(Store(restored)) in shipped.states[index:]
        if asked < number:
            assert number > 20
            return


# What is refused


def shipped_store(seed=1, writes=12):
    shipped = ShippedStore(seed)
    for _ in range(writes):
        shipped.write()
    shipped.look()
    return shipped


def test_a_target_with_another_stores_objects_is_refused():
    one, other = shipped_store(1), ShippedStore(2)
    other.objects = one.objects
    with pytest.raises(InvalidRequest, match=r"the target has the objects of store .*, and this is store "):
        other.look()


def test_a_target_with_something_else_in_it_is_refused():
    shipped = ShippedStore(1)
    shipped.objects.put("readme.txt", b"hello")
    with pytest.raises(InvalidRequest, match=r"the target holds 'readme\.txt'"):
        shipped.look()
    assert shipped.objects.list("") == ["readme.txt"]


def test_a_target_that_is_empty_all_at_once_is_not_taken_for_a_new_one():
    shipped = shipped_store()
    shipped.objects = DirectoryTarget(CrashDisk().handlers)
    shipped.shipper.forget()
    with pytest.raises(TargetTrouble, match="the target is empty now, and was not"):
        shipped.look()


def test_a_copy_of_before_and_one_that_went_another_way_are_refused():
    shipped = shipped_store()
    before = shipped.source.image()
    for _ in range(8):
        shipped.write()
    shipped.close_and_open()
    shipped.look()
    objects = dict.fromkeys(shipped.objects.list(""))
    copy = ShippedStore(1)
    copy.openings = 50
    copy.objects, copy.source = shipped.objects, CrashDisk(before)
    with pytest.raises(InvalidRequest, match="a copy of this store has been shipped here, which went another way"):
        copy.look()
    copy.store = copy._opened()
    with pytest.raises(InvalidRequest, match="another way"):
        copy.look()
    assert dict.fromkeys(shipped.objects.list("")) == objects


def test_what_was_restored_goes_on_being_shipped_to_the_same_target():
    shipped = shipped_store()
    into = CrashDisk()
    run(restore_store(Cut(), Random(7).randbytes), {**into.handlers, **objects_on(shipped.objects)})
    shipped.source = CrashDisk(into.image())
    shipped.openings = 70
    shipped.store = shipped._opened()
    shipped.shipper = shipped.new_shipper()
    for _ in range(5):
        shipped.write()
    shipped.look()
    shipped.check_newest()
    assert shipped.check_every_position() == shipped.counters[-1][0] + 1


def test_what_was_restored_at_a_position_is_another_store():
    shipped = shipped_store()
    into = CrashDisk()
    run(restore_store(Cut(position=5), Random(7).randbytes), {**into.handlers, **objects_on(shipped.objects)})
    shipped.source = CrashDisk(into.image())
    shipped.shipper = shipped.new_shipper()
    with pytest.raises(InvalidRequest, match="the target has the objects of store"):
        shipped.look()


def test_a_position_that_was_not_shipped_is_refused():
    shipped = shipped_store()
    last = shipped.counters[-1][0]
    with pytest.raises(InvalidRequest, match=f"{last + 1} was not shipped: the target goes up to position {last}"):
        shipped.restored(Cut(position=last + 1))


def test_a_position_that_was_compacted_away_unshipped_is_told_with_what_there_is():
    shipped = ShippedStore(1)
    shipped.write(Append("s", (Draft("made", 1),)))
    shipped.look()
    for number in range(5):
        shipped.write(Append("s", (Draft("made", number),)))
    shipped.compact()
    shipped.look()
    with pytest.raises(InvalidRequest, match=r"position 3 was compacted away before .* restore position 1 .* from 6 "):
        shipped.restored(Cut(position=3))


def test_a_target_that_nothing_was_shipped_to_is_refused():
    with pytest.raises(InvalidRequest, match="no store was shipped to this target"):
        ShippedStore(1).restored()


# Damage


def test_damage_in_any_object_is_told_by_its_name_and_offset(small_pieces):
    shipped = shipped_store(seed=4, writes=25)
    names = [*shipped.objects.list("segment."), *shipped.objects.list("catalog."), "identity"]
    random = Random(4)
    for name in names:
        data = shipped.objects.get(name)
        for wrong in (flipped(data, random.randrange(len(data))), flipped(data, 0), data[:-1], b""):
            shipped.objects.put(name, wrong)
            with pytest.raises(CorruptStore, match=r"(segment|catalog|identity)[.0-9a-f]*: offset \d+"):
                shipped.restored()
        shipped.objects.put(name, data)
    shipped.check_newest()


def test_a_missing_object_is_told(small_pieces):
    shipped = shipped_store(seed=4, writes=25)
    for name in shipped.objects.list("segment."):
        data = shipped.objects.get(name)
        shipped.objects.delete(name)
        with pytest.raises(CorruptStore, match=r"segment\.[.0-9a-f]*: offset \d+: expected"):
            shipped.restored()
        shipped.objects.put(name, data)


def test_what_is_before_damage_can_be_restored():
    shipped = shipped_store(seed=4, writes=25)
    name = shipped.objects.list("segment.")[-1]
    data = shipped.objects.get(name)
    shipped.objects.put(name, flipped(data, len(data) - 1))
    with pytest.raises(CorruptStore):
        shipped.restored()
    assert shipped.restored(Cut(position=3))[1] == shipped.state_at(3)


def test_a_damaged_store_is_not_shipped():
    shipped = shipped_store()
    for _ in range(15):
        shipped.write()
    path = max(path for path in shipped.source.image() if path.endswith(".seg"))
    image = shipped.source.image()
    image[path] = flipped(image[path], 120)
    shipped.source = CrashDisk(image)
    with pytest.raises(CorruptStore, match=path):
        shipped.look()


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


# How it lies there


def test_a_tail_that_grows_a_little_at_a_time_is_a_few_pieces():
    shipped = ShippedStore(1)
    for number in range(300):
        shipped.write(KvPut("color", number))
        shipped.look()
        assert len(shipped.objects.list("segment.")) < 3 * 8 * 8
    shipped.close_and_open()
    shipped.look()
    # Each sealed segment is one.
    assert len(shipped.objects.list("segment.")) == len(shipped.shipper._catalogs[-1].sealed) + 1
    shipped.check_newest()
