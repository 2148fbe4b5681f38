"""Faults planted into followers: each is caught by a scene. What catches nothing proves nothing."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest
from follower_scenes import SCENES

from persist_effects import kv
from persist_effects.following import checkpoint, dropping, models, retention, whole
from persist_effects.following.checkpoint import Checkpoint
from persist_effects.following.handling import Handling
from persist_effects.following.models import ReadModel
from persist_effects.following.records import plain
from persist_effects.following.shared import Crew
from persist_effects.following.whole import Follower
from persist_effects.machine import perform
from persist_effects.requests import Conflict, KvPut, Transact


class Fault(NamedTuple):
    """What is planted, and the scene that catches it."""

    plant: Callable[[pytest.MonkeyPatch], None]
    scene: str


def checkpoint_before_effects(patch):
    def advance(self, position, writes=(), **changes):
        record = msgspec.structs.replace(self.record, position=position, **changes)
        answers = yield from perform(Transact((KvPut(self.key, plain(record), self.revision),), self._checks))
        if isinstance(answers, Conflict):
            return answers
        self.position, self.revision = position, answers[0]
        self._keep(record)
        return [*answers, *((yield from perform(Transact(tuple(writes)))) if writes else ())]

    patch.setattr(Checkpoint, "advance", advance)


def effects_before_checkpoint(patch):
    honest = Checkpoint.advance

    def advance(self, position, writes=(), **changes):
        if writes:
            yield from perform(Transact(tuple(writes)))
        return (yield from honest(self, position, (), **changes))

    patch.setattr(Checkpoint, "advance", advance)


def moved_whoever_has_moved_it(patch):
    """The fence: a member that is late writes."""

    def advance(self, position, writes=(), **changes):
        record = msgspec.structs.replace(self.record, position=position, **changes)
        answers = yield from perform(Transact((KvPut(self.key, plain(record)), *writes)))
        self.position, self.revision = position, answers[0]
        self._keep(record)
        return answers

    patch.setattr(Checkpoint, "advance", advance)


def taken_over_before_it_has_caught_up(patch):
    def extent(name, record):
        yield from ()
        return (10**9, 0)

    patch.setattr(whole, "extent", extent)


def taken_over_without_regard_to_the_other(patch):
    """It has come to the end as it was when it began, and the version before has gone on since."""

    def extent(name, record):
        yield from ()
        return (record.position, 0 if record.building else record.position)

    patch.setattr(whole, "extent", extent)


def old_keys_go_before_it_is_taken_over(patch):
    honest = Follower.take_over

    def take_over(self):
        yield from dropping.drop_generation(self.wanted.name, self.checkpoint.generation - 1, are_seen=False)
        return (yield from honest(self))

    patch.setattr(Follower, "take_over", take_over)


def old_keys_stay(patch):
    def drop_nothing(self):
        yield from ()
        return False

    patch.setattr(Follower, "drop_some", drop_nothing)


def readers_do_not_look_again(patch):
    def asked(self, ask, is_sure=None):
        return (yield from ask(models.ModelVersion(self.name, (yield from self._generation()))))

    patch.setattr(ReadModel, "_asked", asked)


def both_versions_fill_the_same_keys(patch):
    honest = models.model_prefix
    patch.setattr(models, "model_prefix", lambda name, generation: honest(name, 1))


def what_is_set_aside_is_lost(patch):
    def pass_by(self, reached, event, error, failures):
        return (yield from reached.advance(event.position))

    patch.setattr(Handling, "_pass_by", pass_by)


def later_events_do_not_wait_for_the_one_set_aside(patch):
    def nothing(self, reached, batch):
        yield from ()
        return {}

    patch.setattr(Handling, "_held_back", nothing)


def tried_again_and_forgotten_whatever_comes_of_it(patch):
    honest = Handling._try_stream

    def try_stream(self, reached, aside, *rest):
        yield from kv.delete(reached.aside_key(aside.stream))
        return (yield from honest(self, reached, aside, *rest))

    patch.setattr(Handling, "_try_stream", try_stream)


def only_the_first_is_tried_again(patch):
    honest = Handling._try_stream

    def try_stream(self, reached, aside, *rest):
        first = msgspec.structs.replace(aside, through=aside.first)
        return (yield from honest(self, reached, first, *rest))

    patch.setattr(Handling, "_try_stream", try_stream)


def a_partition_is_taken_from_who_lives(patch):
    """And moved by whoever thinks that it has it."""
    patch.setattr(Crew, "_nobodys", lambda self, kept, living: list(range(self.group.partitions)))
    moved_whoever_has_moved_it(patch)


def a_group_begins_at_the_end_of_what_others_have_read(patch):
    honest = Crew._take

    def take(self, mine):
        reached = max(self.reached.values(), default=0)
        honest(self, mine)
        self.reached = {index: max(reached, at) for index, at in self.reached.items()}

    patch.setattr(Crew, "_take", take)


def retention_forgets_what_is_being_built(patch):
    honest = retention._seen_by
    patch.setattr(
        retention,
        "_seen_by",
        lambda name, record, *rest: honest(name, msgspec.structs.replace(record, building=0), *rest),
    )


def retention_forgets_what_was_set_aside(patch):
    def none(name, generation):
        yield from ()
        return {}

    patch.setattr(retention, "asides_of", none)


def retention_looks_at_the_first_of_a_group(patch):
    honest = checkpoint.extent

    def extent(name, record):
        lowest, highest = yield from honest(name, record)
        return highest, lowest

    patch.setattr(retention, "extent", extent)


def retention_knows_nobody(patch):
    def nobody(stream, seq):
        yield from ()
        return {}

    patch.setattr(retention, "_seen_by_each", nobody)


def an_event_more_is_dropped(patch):
    honest = retention._last_seq_at

    def last_seq_at(stream, position, seq):
        return min(seq, (yield from honest(stream, position, seq)) + 1)

    patch.setattr(retention, "_last_seq_at", last_seq_at)


FAULTS = [
    Fault(checkpoint_before_effects, "events are set aside, and it is killed"),
    Fault(effects_before_checkpoint, "events are set aside, and it is killed"),
    Fault(moved_whoever_has_moved_it, "a member is late"),
    Fault(taken_over_before_it_has_caught_up, "a version is built beside readers"),
    Fault(taken_over_without_regard_to_the_other, "a version is built while the one before goes on"),
    Fault(old_keys_go_before_it_is_taken_over, "a version is built beside readers"),
    Fault(old_keys_stay, "a version is built beside readers"),
    Fault(readers_do_not_look_again, "a version is built beside readers"),
    Fault(both_versions_fill_the_same_keys, "a version is built beside readers"),
    Fault(what_is_set_aside_is_lost, "events are set aside"),
    Fault(later_events_do_not_wait_for_the_one_set_aside, "events are set aside"),
    Fault(tried_again_and_forgotten_whatever_comes_of_it, "what was set aside is tried again, and it is killed"),
    Fault(only_the_first_is_tried_again, "what was set aside is tried again"),
    Fault(a_partition_is_taken_from_who_lives, "members come and go"),
    Fault(a_group_begins_at_the_end_of_what_others_have_read, "a member is late"),
    Fault(retention_forgets_what_is_being_built, "truncation beside a version that is built"),
    Fault(retention_forgets_what_was_set_aside, "truncation beside what was set aside"),
    Fault(retention_looks_at_the_first_of_a_group, "truncation beside a group"),
    Fault(retention_knows_nobody, "truncation beside a follower"),
    Fault(an_event_more_is_dropped, "truncation beside a follower"),
]


LONG = {
    moved_whoever_has_moved_it,
    taken_over_without_regard_to_the_other,
    a_group_begins_at_the_end_of_what_others_have_read,
}
"""What is caught only after very many orders."""


@pytest.mark.exploration
@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, marks=pytest.mark.exploration) if fault.plant in LONG else fault for fault in FAULTS],
    ids=lambda fault: fault.plant.__name__,
)
def test_a_planted_fault_is_caught(monkeypatch, fault):
    fault.plant(monkeypatch)
    report = SCENES[fault.scene].explored()
    assert report.verdict == "failed", report
    assert report.failures[0].kind != "not deterministic", report
    # And not because the fault that was planted is no program.
    found = report.failures[0].found
    assert not any(mistake in found for mistake in ("AttributeError", "NameError", "TypeError")), found
