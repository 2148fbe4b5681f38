"""Faults planted into flows: each is caught by a scene. What catches nothing proves nothing."""

from collections.abc import Callable
from typing import NamedTuple

import msgspec
import pytest
from flow_scenes import SCENES

from persist_effects.errors import Cancelled
from persist_effects.flow import conducting, journal, owning
from persist_effects.flow.conducting import _Conductor
from persist_effects.flow.journal import ANSWER, CANCEL, ERROR, PATCHED, STARTED, JournalStep
from persist_effects.flow.replay import Replay
from persist_effects.machine import perform
from persist_effects.requests import (
    Append,
    Appended,
    Conflict,
    KvDelete,
    KvPut,
    Read,
    Transact,
    TruncateThrough,
)


class Fault(NamedTuple):
    """What is planted, and the scene that catches it."""

    plant: Callable[[pytest.MonkeyPatch], None]
    scene: str


# Writes and the journal


def journal_after_the_effect(patch):
    honest = _Conductor._commit

    def commit(self, writes=(), checks=(), step=None, *, is_noted=True):
        if writes and is_noted:
            answers = yield from perform(Transact(writes, checks))
            if isinstance(answers, Conflict):
                return answers
            # The answers are kept, but the writes were not in the transaction.
            encoded, _ = journal.encode_reply(writes[0], answers[0])
            yield from honest(self, (), (), step._replace(kind=ANSWER, outcome=encoded))
            return answers
        return (yield from honest(self, writes, checks, step, is_noted=is_noted))

    patch.setattr(_Conductor, "_commit", commit)


def effect_after_the_journal(patch):
    honest = _Conductor._commit

    def commit(self, writes=(), checks=(), step=None, *, is_noted=True):
        if writes and is_noted:
            encoded, _ = journal.encode_reply(writes[0], guessed(writes[0]))
            yield from honest(self, (), (), step._replace(kind=ANSWER, outcome=encoded))
            return (yield from perform(Transact(writes, checks)))
        return (yield from honest(self, writes, checks, step, is_noted=is_noted))

    patch.setattr(_Conductor, "_commit", commit)


def guessed(write):
    return Appended(1, 1, 1, 0) if isinstance(write, Append) else 1


def entries_expect_nothing(patch):
    """The lease, unfenced: who has lost a flow writes."""

    def unfenced(request):
        if isinstance(request, Transact):
            return msgspec.structs.replace(request, writes=tuple(map(unfenced, request.writes)))
        if isinstance(request, Append) and request.stream.startswith(journal.JOURNAL):
            return msgspec.structs.replace(request, expected=None)
        return request

    patch.setattr(owning, "perform", lambda request: perform(unfenced(request)))


def a_conflict_on_the_journal_is_fed(patch):
    def append(self, draft, writes=(), checks=(), is_noted=False):
        entry = Append(self._stream, (draft,), self._seq)
        request = Transact((*writes, entry), checks, is_noted)
        answer = yield from perform(request)
        if isinstance(answer, Conflict):
            self._seq = (yield from perform(Read(self._stream, 0, limit=1))).head
            return answer
        self._seq, self._is_owner = answer[-1].last_seq, True
        self._latest = max(self._latest, answer[-1].at)
        return answer

    patch.setattr(_Conductor, "_append", append)


def what_is_uncertain_counts_as_written(patch):
    honest = _Conductor._read_back

    def read_back(self, *asked):
        found = yield from honest(self, *asked)
        return found or [*map(guessed, asked[-1]), Appended(self._seq, self._seq, 1, self._latest)]

    patch.setattr(_Conductor, "_read_back", read_back)


def what_is_uncertain_is_written_anew_without_a_look(patch):
    honest = _Conductor._append

    def append(self, *asked):
        try:
            return (yield from honest(self, *asked))
        except Doubtful:
            page = yield from perform(Read(self._stream, 0))
            self._seq = page.head
            return (yield from honest(self, *asked))

    def read_back(self, *asked):
        yield from ()
        raise Doubtful

    patch.setattr(_Conductor, "_append", append)
    patch.setattr(_Conductor, "_read_back", read_back)


class Doubtful(Exception):
    """Nobody looked."""


def tokens_are_not_compared(patch):
    """Whatever stands behind the last entry is taken for this host's own."""

    def read_back(self, *asked):
        page = yield from perform(Read(self._stream, self._seq, limit=1))
        if not page.events:
            return None
        (event,) = page.events
        return [*map(guessed, asked[-1]), Appended(event.seq, event.seq, event.position, event.at)]

    patch.setattr(_Conductor, "_read_back", read_back)


def noted_answers_are_those_of_other_writes(patch):
    honest = journal.noted_answer

    def noted_answer(request, noted):
        count = len(request.writes) if isinstance(request, Transact) else 1
        return honest(request, [*reversed(noted[:count]), *noted[count:]])

    patch.setattr(journal, "noted_answer", noted_answer)


# Steps and their outcomes


def answers_of_reads_are_not_journaled(patch):
    without_steps(patch, lambda step: step.kind == ANSWER and b"persist/kv-get" in step.known)


def random_numbers_are_drawn_anew(patch):
    without_steps(patch, lambda step: b"persist/new-id" in step.known)


def what_is_cancelled_is_not_journaled(patch):
    without_steps(patch, lambda step: step.kind == CANCEL)


def errors_of_activities_are_not_journaled(patch):
    without_steps(patch, lambda step: step.kind == ERROR)


def a_change_is_decided_anew(patch):
    without_steps(patch, lambda step: step.kind == PATCHED)


def without_steps(patch, is_left_out):
    """These steps are fed, and never written down."""
    honest = _Conductor._tell

    def tell(self, step, size_bytes=0):
        if not is_left_out(step):
            honest(self, step, size_bytes)

    patch.setattr(_Conductor, "_tell", tell)


def a_change_is_in_force_for_those_that_have_got_past_it(patch):
    def is_patched(self, change):
        return True

    patch.setattr(_Conductor, "_is_patched", is_patched)


def activities_begin_before_the_journal_knows_why(patch):
    honest = _Conductor._commit_all

    def commit_all(self):
        if not any(type(branch.request) is conducting.Call for branch in self._flow.waiting.values()):
            yield from honest(self)

    patch.setattr(_Conductor, "_commit_all", commit_all)


def a_call_is_begun_before_its_flow_is_claimed(patch):
    def claim(self):
        yield from ()

    patch.setattr(_Conductor, "_claim", claim)


def what_must_not_be_repeated_is_repeated(patch):
    honest = _Conductor._prepare

    def prepare(self):
        self._calls += [path for path in calls_to_begin(self) if path in self._begun]
        yield from honest(self)

    patch.setattr(_Conductor, "_prepare", prepare)


def what_must_not_be_repeated_begins_before_the_journal_says_so(patch):
    honest = _Conductor._prepare

    def prepare(self):
        never = [path for path in calls_to_begin(self) if path not in self._begun]
        self._to_begin = [path for path in self._to_begin if path not in never]
        yield from honest(self)
        self._calls += never

    patch.setattr(_Conductor, "_prepare", prepare)


def calls_to_begin(conductor):
    waiting = conductor._flow.waiting
    return [path for path in conductor._to_begin if path in waiting and type(waiting[path].request) is conducting.Call]


def keys_are_made_of_hosts(patch):
    honest = _Conductor._started

    def started(self, *asked):
        each = honest(self, *asked)
        return msgspec.structs.replace(each, key=f"{self._token.hex()}/{each.key}")

    patch.setattr(_Conductor, "_started", started)


# Messages


def signals_that_came_early_are_dropped(patch):
    honest = _Conductor._deliver

    def deliver(self, name):
        honest(self, name)
        self._signals[name].clear()

    patch.setattr(_Conductor, "_deliver", deliver)


def messages_are_not_noted_as_taken(patch):
    honest = _Conductor._commit

    def commit(self, *asked, **options):
        self._untold = [JournalStep(*each)._replace(message=None) for each in self._untold]
        return (yield from honest(self, *asked, **options))

    patch.setattr(_Conductor, "_commit", commit)


def the_newest_signal_comes_first(patch):
    honest = _Conductor._receive

    def receive(self, path, request):
        self._signals[request.name].reverse()
        honest(self, path, request)

    patch.setattr(_Conductor, "_receive", receive)


def the_next_run_drops_the_mail(patch):
    honest = _Conductor._continue

    def go_on(self, end):
        self._signals.clear()
        return (yield from honest(self, end))

    patch.setattr(_Conductor, "_continue", go_on)


def the_next_run_takes_messages_again(patch):
    honest = _Conductor._append_last

    def append_last(self, draft, writes):
        if draft.type == journal.BEGUN:
            draft = msgspec.structs.replace(draft, data=msgspec.structs.replace(draft.data, consumed=[]))
            writes = [each for each in writes if getattr(each, "stream", None) != self._inbox]
        return (yield from honest(self, draft, writes))

    patch.setattr(_Conductor, "_append_last", append_last)


def a_cancellation_undoes_the_end(patch):
    honest = _Conductor._take

    def take(self, event):
        if event.type == "cancel" and self._flow.end is not None:
            self._flow.end = Cancelled()
        else:
            honest(self, event)

    patch.setattr(_Conductor, "_take", take)


# Timers, branches, children


def keys_of_timers_stay(patch):
    def forget_timer(self, path):
        self._begun.pop(path, None)

    patch.setattr(_Conductor, "_forget_timer", forget_timer)


def what_was_withdrawn_is_not_told(patch):
    def withdraw(self):
        self._flow.withdrawn.clear()

    patch.setattr(_Conductor, "_withdraw", withdraw)


def what_comes_late_of_a_branch_that_lost_is_journaled(patch):
    honest = _Conductor._came

    def came(self, each):
        if each.path in self._flow.waiting:
            honest(self, each)
        else:
            # By the time that it comes nobody waits: it is given to whoever does.
            for path in list(self._flow.waiting)[:1]:
                honest(self, msgspec.structs.replace(each, path=path))

    patch.setattr(_Conductor, "_came", came)


def a_branch_that_lost_does_not_clean_up(patch):
    honest = Replay._cancel

    def cancel(self, branch):
        if branch.group is not None and branch.request is not None and not branch.is_cancelled:
            branch.is_cancelled = True
            path = (*branch.path, branch.ordinal)
            del self.waiting[path]
            self.withdrawn.append(path)
            branch.request = None
            conducting.give_up_program(branch.program)
            self._ended(branch, Cancelled())
        else:
            honest(self, branch)

    patch.setattr(conducting, "give_up_program", lambda program: _give_up(program), raising=False)
    patch.setattr(Replay, "_cancel", cancel)


def _give_up(program):
    from persist_effects.spinning import give_up

    give_up(program)


def first_of_does_not_wait_for_those_that_clean_up(patch):
    honest = Replay._ended

    def ended(self, branch, end):
        group = branch.group
        if group is None or group.mode != "first":
            honest(self, branch, end)
            return
        if group.settled_by is None:
            honest(self, branch, end)
            if group.left:
                for place, other in enumerate(group.ends):
                    if other is None:
                        group.ends[place] = Cancelled()
                self._settle(group)

    patch.setattr(Replay, "_ended", ended)


def the_winner_is_the_first_in_place(patch):
    """Not the first outcome of the journal."""
    honest = _Conductor.go_on

    def go_on(self):
        read_mail = self._read_mail

        def read_backwards():
            honest_take = self._take
            held = []
            self._take = held.append
            yield from read_mail()
            self._take = honest_take
            for event in reversed(held):
                honest_take(event)

        self._read_mail = read_backwards
        return (yield from honest(self))

    patch.setattr(_Conductor, "go_on", go_on)


def outcomes_of_those_that_lost_are_not_journaled(patch):
    """What a branch did while it cleaned up is done again."""
    honest = _Conductor._came

    def came(self, each):
        branch = self._flow.waiting.get(each.path)
        count = len(self._untold)
        honest(self, each)
        if branch is not None and branch.is_cancelled and len(branch.path) > 0:
            del self._untold[count : count + 1]

    patch.setattr(_Conductor, "_came", came)


def a_child_begins_outside_of_the_transaction(patch):
    honest = _Conductor._commit

    def commit(self, writes=(), checks=(), step=None, *, is_noted=True):
        if step is not None and step.kind == STARTED:
            begun = yield from perform(Transact(writes))
            if isinstance(begun, Conflict):
                return begun
            yield from honest(self, (), (), step)
            return begun
        return (yield from honest(self, writes, checks, step, is_noted=is_noted))

    patch.setattr(_Conductor, "_commit", commit)


def a_child_does_not_tell_its_parent(patch):
    honest = _Conductor._append_last

    def append_last(self, draft, writes):
        yield from honest(
            self, draft, [each for each in writes if not str(getattr(each, "stream", "")).startswith(journal.INBOX)]
        )

    patch.setattr(_Conductor, "_append_last", append_last)


def a_child_tells_its_parent_after_its_end(patch):
    honest = _Conductor._append_last

    def append_last(self, draft, writes):
        told = [each for each in writes if isinstance(each, Append)]
        yield from honest(self, draft, [each for each in writes if each not in told])
        for each in told:
            yield from perform(each)

    patch.setattr(_Conductor, "_append_last", append_last)


# The end


def the_past_is_not_dropped_at_the_end(patch):
    honest = _Conductor._append

    def append(self, entry, writes=(), checks=(), is_noted=False):
        kept = tuple(each for each in writes if not (isinstance(each, TruncateThrough) and each.stream == self._stream))
        return (yield from honest(self, entry, kept, checks, is_noted))

    patch.setattr(_Conductor, "_append", append)


def the_past_is_dropped_before_the_end(patch):
    honest = _Conductor._append_last

    def append_last(self, draft, writes):
        yield from perform(TruncateThrough(self._stream, self._seq))
        yield from honest(self, draft, writes)

    patch.setattr(_Conductor, "_append_last", append_last)


def a_flow_that_has_ended_stays_open(patch):
    honest = _Conductor._append_last

    def append_last(self, draft, writes):
        yield from honest(self, draft, [each for each in writes if not isinstance(each, KvDelete)])

    patch.setattr(_Conductor, "_append_last", append_last)


def it_is_closed_after_its_end(patch):
    honest = _Conductor._append_last

    def append_last(self, draft, writes):
        later = [each for each in writes if isinstance(each, KvDelete | KvPut)]
        yield from honest(self, draft, [each for each in writes if each not in later])
        yield from perform(Transact(tuple(later)))

    patch.setattr(_Conductor, "_append_last", append_last)


FAULTS = [
    Fault(journal_after_the_effect, "steps"),
    Fault(effect_after_the_journal, "steps"),
    Fault(entries_expect_nothing, "two hosts"),
    Fault(a_conflict_on_the_journal_is_fed, "two hosts"),
    Fault(what_is_uncertain_counts_as_written, "steps"),
    Fault(what_is_uncertain_is_written_anew_without_a_look, "steps"),
    Fault(tokens_are_not_compared, "two hosts"),
    Fault(noted_answers_are_those_of_other_writes, "steps"),
    Fault(answers_of_reads_are_not_journaled, "steps"),
    Fault(random_numbers_are_drawn_anew, "steps"),
    Fault(what_is_cancelled_is_not_journaled, "a trip that is cancelled, and its host is killed"),
    Fault(errors_of_activities_are_not_journaled, "a branch that fails"),
    Fault(a_change_is_decided_anew, "changed code, and a new flow"),
    Fault(a_change_is_in_force_for_those_that_have_got_past_it, "changed code, and a flow from before"),
    Fault(activities_begin_before_the_journal_knows_why, "steps"),
    Fault(a_call_is_begun_before_its_flow_is_claimed, "a flow that ends its hosts"),
    Fault(what_must_not_be_repeated_is_repeated, "a call that is not repeated"),
    Fault(what_must_not_be_repeated_begins_before_the_journal_says_so, "a call that is not repeated"),
    Fault(keys_are_made_of_hosts, "steps"),
    Fault(signals_that_came_early_are_dropped, "signals that came early"),
    Fault(messages_are_not_noted_as_taken, "signals that came early"),
    Fault(the_newest_signal_comes_first, "signals that came early"),
    Fault(the_next_run_drops_the_mail, "runs, and mail that was not read"),
    Fault(the_next_run_takes_messages_again, "runs, and mail that was not read"),
    Fault(a_cancellation_undoes_the_end, "the end, or a cancellation"),
    Fault(keys_of_timers_stay, "a timer and a signal"),
    Fault(what_was_withdrawn_is_not_told, "a parent that is cancelled"),
    Fault(what_comes_late_of_a_branch_that_lost_is_journaled, "calls of which one wins"),
    Fault(a_branch_that_lost_does_not_clean_up, "a branch that loses"),
    Fault(first_of_does_not_wait_for_those_that_clean_up, "a branch that loses"),
    Fault(the_winner_is_the_first_in_place, "signals that came early"),
    Fault(outcomes_of_those_that_lost_are_not_journaled, "a branch that loses"),
    Fault(a_child_begins_outside_of_the_transaction, "a child"),
    Fault(a_child_does_not_tell_its_parent, "a child"),
    Fault(a_child_tells_its_parent_after_its_end, "a child"),
    Fault(the_past_is_not_dropped_at_the_end, "steps"),
    Fault(the_past_is_dropped_before_the_end, "steps"),
    Fault(a_flow_that_has_ended_stays_open, "steps"),
    Fault(it_is_closed_after_its_end, "steps"),
]


@pytest.mark.exploration
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.plant.__name__)
def test_a_planted_fault_is_caught(monkeypatch, fault):
    fault.plant(monkeypatch)
    scene = SCENES[fault.scene]
    reports = [scene.struck()] if scene.depth else []
    if scene.bound is not None:
        reports.append(scene.side_by_side())
    caught = [failure for report in reports for failure in report.failures if failure.kind != "not deterministic"]
    assert caught, reports
    # And not because the fault that was planted is no program.
    for failure in caught[:1]:
        assert not any(
            mistake in failure.found for mistake in ("AttributeError", "NameError", "TypeError", "a transaction got")
        ), failure
