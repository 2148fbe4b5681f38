"""The replay core alone: a program, its branches, and the requests that they wait with. There is no store here."""

from contextvars import ContextVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persist_effects import all_of, flow, perform
from persist_effects.errors import Cancelled, FlowContinued, NotAProgram, NotARequest
from persist_effects.flow.replay import Replay
from persist_effects.flow.requests import Signal
from persist_effects.requests import AllOf, Answered, Failed


def ask(name):
    return (yield from perform(Signal(name)))


_begun = []


@pytest.fixture(autouse=True)
def _let_go():
    yield
    while _begun:
        _begun.pop().close()


def begun(program, patched=None):
    replay = Replay(program, patched)
    _begun.append(replay)
    replay.begin()
    return replay


def waits(replay):
    """The frontier: the names that are asked for, by their paths."""
    return {path: branch.request.name for path, branch in replay.waiting.items()}


def answer(replay, name, value=None):
    """Give the first request of a name its answer."""
    replay.feed(next(path for path, asked in waits(replay).items() if asked == name), Answered(value))


def fail(replay, name, error):
    replay.feed(next(path for path, asked in waits(replay).items() if asked == name), Failed(error))


# Paths


def test_steps_are_numbered_from_one_on():
    def both():
        return (yield from ask("a")), (yield from ask("b"))

    replay = begun(both())
    assert waits(replay) == {(1,): "a"}
    replay.feed((1,), Answered("A"))
    assert waits(replay) == {(2,): "b"}
    replay.feed((2,), Answered("B"))
    assert replay.end == Answered(("A", "B"))


def test_the_path_of_a_nested_branch_names_the_step_and_the_branch_at_each_level():
    def inner():
        yield from ask("before")
        return (yield from flow.all_of(ask("x"), ask("y")))

    def outer():
        yield from ask("first")
        return (yield from flow.all_of(ask("left"), inner()))

    replay = begun(outer())
    answer(replay, "first")
    assert waits(replay) == {(2, 1, 1): "left", (2, 2, 1): "before"}
    answer(replay, "before")
    assert waits(replay) == {(2, 1, 1): "left", (2, 2, 2, 1, 1): "x", (2, 2, 2, 2, 1): "y"}


def test_a_step_behind_branches_has_the_next_ordinal_however_many_steps_they_took():
    def long():
        for _ in range(5):
            yield from ask("more")

    def body():
        yield from flow.all_of(long(), ask("one"))
        yield from ask("next")

    replay = begun(body())
    answer(replay, "one")
    for _ in range(5):
        answer(replay, "more")
    assert waits(replay) == {(2,): "next"}


def test_an_outcome_for_a_path_at_which_nothing_waits_is_refused():
    replay = begun(ask("a"))
    with pytest.raises(KeyError):
        replay.feed((2,), Answered(None))
    assert waits(replay) == {(1,): "a"}


# Branches


def test_all_of_gives_the_values_in_the_order_of_the_branches_and_not_of_the_answers():
    replay = begun(flow.all_of(ask("a"), ask("b"), ask("c")))
    for name in "cab":
        answer(replay, name, name.upper())
    assert replay.end == Answered(("A", "B", "C"))


def test_each_branch_goes_on_at_its_own_outcome():
    def two(name):
        yield from ask(f"{name}1")
        yield from ask(f"{name}2")

    replay = begun(flow.all_of(two("a"), two("b")))
    answer(replay, "b1")
    assert waits(replay) == {(1, 1, 1): "a1", (1, 2, 2): "b2"}


def test_branches_may_be_requests():
    replay = begun(flow.all_of(Signal("a"), Signal("b")))
    assert waits(replay) == {(1, 1, 1): "a", (1, 2, 1): "b"}


def test_all_of_nothing_is_an_empty_tuple_and_takes_a_step():
    def body():
        nothing = yield from flow.all_of()
        return nothing, (yield from ask("a"))

    replay = begun(body())
    assert waits(replay) == {(2,): "a"}
    answer(replay, "a", 1)
    assert replay.end == Answered(((), 1))


def test_a_flow_without_any_step_ends_at_once():
    def at_once():
        return 7
        yield

    assert begun(at_once()).end == Answered(7)


def at_once(value):
    return value
    yield


def test_a_branch_that_ends_at_once_is_as_good_as_any_other():
    replay = begun(flow.all_of(at_once(1), ask("b"), at_once(3)))
    answer(replay, "b", 2)
    assert replay.end == Answered((1, 2, 3))


@pytest.mark.parametrize("place", range(3))
def test_a_branch_that_ends_at_once_wins_and_those_behind_it_ask_nothing(place):
    branches = [ask("a"), ask("b")]
    branches.insert(place, at_once("won"))
    replay = begun(flow.first_of(*branches))
    assert replay.end == Answered((place, "won"))
    assert not replay.waiting
    assert replay.withdrawn == [(1, number + 1, 1) for number in range(place)]


def test_a_branch_that_fails_at_once_keeps_those_behind_it_from_asking():
    def failing():
        raise LookupError("no tea")
        yield

    def body():
        with pytest.raises(LookupError):
            yield from flow.all_of(failing(), ask("a"), ask("b"))
        return (yield from ask("next"))

    replay = begun(body())
    assert waits(replay) == {(2,): "next"}
    assert list(replay.asked) == [(2,)]


def test_first_of_gives_the_place_of_the_winner_and_its_value_and_withdraws_the_others():
    replay = begun(flow.first_of(ask("a"), ask("b"), ask("c")))
    answer(replay, "b", "B")
    assert replay.end == Answered((1, "B"))
    assert replay.withdrawn == [(1, 1, 1), (1, 3, 1)]
    assert not replay.waiting


def test_the_first_that_ends_with_an_error_is_the_first():
    replay = begun(flow.first_of(ask("a"), ask("b")))
    fail(replay, "b", LookupError("no tea"))
    assert repr(replay.end) == "Failed(error=LookupError('no tea'))"


def test_what_losers_clean_up_is_done_before_first_of_goes_on():
    def loser():
        try:
            yield from ask("long")
        finally:
            yield from ask("clean")
            yield from ask("cleaner")

    def body():
        won = yield from flow.first_of(loser(), ask("short"))
        return won, (yield from ask("next"))

    replay = begun(body())
    answer(replay, "short", "S")
    assert replay.withdrawn == [(1, 1, 1)]
    assert waits(replay) == {(1, 1, 2): "clean"}
    answer(replay, "clean")
    assert waits(replay) == {(1, 1, 3): "cleaner"}
    answer(replay, "cleaner")
    assert waits(replay) == {(2,): "next"}
    answer(replay, "next", 1)
    assert replay.end == Answered(((1, "S"), 1))


def test_a_loser_that_raises_while_it_cleans_up_is_heard():
    def loser():
        try:
            yield from ask("long")
        finally:
            raise OSError("cannot clean up")

    replay = begun(flow.first_of(ask("short"), loser()))
    answer(replay, "short")
    assert isinstance(replay.end, Failed)
    assert repr(replay.end.error) == "OSError('cannot clean up')"
    assert replay.end.error.__notes__ == ["branch 2 raised it while it cleaned up: branch 1 had won"]


def test_a_branch_that_fails_cancels_the_others_and_says_what_those_raised():
    def loser():
        try:
            yield from ask("long")
        finally:
            raise OSError("cannot clean up")

    replay = begun(flow.all_of(ask("a"), loser(), ask("c")))
    fail(replay, "a", LookupError("no tea"))
    assert isinstance(replay.end, Failed)
    assert repr(replay.end.error) == "LookupError('no tea')"
    assert replay.end.error.__notes__ == ["branch 2 raised OSError: cannot clean up"]
    assert replay.withdrawn == [(1, 2, 1), (1, 3, 1)]


def test_an_error_of_a_branch_can_be_caught_where_all_of_was_asked():
    def body():
        try:
            yield from flow.all_of(ask("a"), ask("b"))
        except LookupError as error:
            return str(error)

    replay = begun(body())
    fail(replay, "b", LookupError("no tea"))
    assert replay.end == Answered("no tea")


def test_a_plain_all_of_has_places_and_its_parts_end_with_outcomes_of_their_own():
    def body():
        return (yield from perform(AllOf((Signal("a"), Signal("b")))))

    replay = begun(body())
    assert waits(replay) == {(1, 1, 1): "a", (1, 2, 1): "b"}
    error = LookupError("no tea")
    fail(replay, "a", error)
    assert waits(replay) == {(1, 2, 1): "b"}
    answer(replay, "b", "B")
    assert replay.end == Answered([Failed(error), Answered("B")])


def test_programs_that_go_on_together_as_in_any_program_do_so_in_rounds():
    def two(name):
        yield from ask(f"{name}1")
        return (yield from ask(f"{name}2"))

    replay = begun(all_of(two("a"), two("b")))
    assert waits(replay) == {(1, 1, 1): "a1", (1, 2, 1): "b1"}
    answer(replay, "a1")
    assert waits(replay) == {(1, 2, 1): "b1"}
    answer(replay, "b1")
    assert waits(replay) == {(2, 1, 1): "a2", (2, 2, 1): "b2"}


# Many


def test_a_thousand_branches_go_on_at_once():
    replay = begun(flow.all_of(*(ask(str(number)) for number in range(1000))))
    assert list(replay.waiting) == [(1, number + 1, 1) for number in range(1000)]
    for number in reversed(range(1000)):
        replay.feed((1, number + 1, 1), Answered(number))
    assert replay.end == Answered(tuple(range(1000)))


def test_a_thousand_branches_are_cancelled_by_one():
    replay = begun(flow.first_of(*(ask(str(number)) for number in range(1000))))
    answer(replay, "500")
    assert replay.end == Answered((500, None))
    assert len(replay.withdrawn) == 999


def test_ten_thousand_joins_in_a_row_take_no_more_of_the_stack_than_one():
    def body():
        for _ in range(10_000):
            yield from flow.all_of()
            yield from flow.all_of(at_once(1), at_once(2))
        return "done"

    assert begun(body()).end == Answered("done")


def test_branches_in_branches_three_hundred_deep_end_one_in_the_other():
    def nested(depth):
        if not depth:
            return (yield from ask("deep"))
        (value,) = yield from flow.all_of(nested(depth - 1))
        return value

    replay = begun(nested(300))
    (path,) = replay.waiting
    assert len(path) == 601
    replay.feed(path, Answered("found"))
    assert replay.end == Answered("found")


# Cancellation


def test_a_flow_that_is_cancelled_ends_as_cancelled():
    replay = begun(ask("a"))
    replay.cancel()
    assert isinstance(replay.end, Cancelled)
    assert replay.is_cancelled
    assert replay.withdrawn == [(1,)]


def cleaning(name):
    try:
        return (yield from ask(name))
    finally:
        yield from ask(f"clean {name}")


def test_what_a_flow_does_in_its_finally_has_the_next_ordinals():
    replay = begun(cleaning("a"))
    replay.cancel()
    assert waits(replay) == {(2,): "clean a"}
    assert replay.end is None
    answer(replay, "clean a")
    assert isinstance(replay.end, Cancelled)


def test_nested_branches_clean_up_before_those_that_wait_for_them():
    def body():
        try:
            yield from flow.all_of(cleaning("a"), flow.first_of(cleaning("b"), ask("c")))
        finally:
            yield from ask("clean all")

    replay = begun(body())
    replay.cancel()
    assert waits(replay) == {(1, 1, 2): "clean a", (1, 2, 1, 1, 2): "clean b"}
    assert replay.withdrawn == [(1, 1, 1), (1, 2, 1, 1, 1), (1, 2, 1, 2, 1)]
    answer(replay, "clean b")
    answer(replay, "clean a")
    assert waits(replay) == {(2,): "clean all"}
    answer(replay, "clean all")
    assert isinstance(replay.end, Cancelled)


def test_cancelling_twice_does_not_interrupt_the_cleaning_up():
    replay = begun(cleaning("a"))
    replay.cancel()
    replay.cancel()
    assert waits(replay) == {(2,): "clean a"}


def test_a_flow_that_has_ended_is_not_cancelled_any_more():
    replay = begun(ask("a"))
    answer(replay, "a", 1)
    replay.cancel()
    assert replay.end == Answered(1)
    assert not replay.is_cancelled


def test_a_flow_that_catches_cancelled_and_returns_has_ended_with_its_value():
    def body():
        try:
            yield from ask("a")
        except Cancelled:
            return "gave up in time"

    replay = begun(body())
    replay.cancel()
    assert replay.end == Answered("gave up in time")


def test_a_flow_that_is_cancelled_says_what_its_branches_raised_meanwhile():
    def failing():
        try:
            yield from ask("a")
        finally:
            raise OSError("cannot clean up")

    replay = begun(flow.all_of(failing(), ask("b")))
    replay.cancel()
    assert isinstance(replay.end, Cancelled)
    assert replay.end.__notes__ == ["branch 1 raised OSError: cannot clean up"]


def test_branches_that_are_begun_in_a_finally_go_on_although_the_flow_is_cancelled():
    def body():
        try:
            yield from ask("a")
        finally:
            yield from flow.all_of(ask("x"), ask("y"))

    replay = begun(body())
    replay.cancel()
    assert waits(replay) == {(2, 1, 1): "x", (2, 2, 1): "y"}
    answer(replay, "x")
    answer(replay, "y")
    assert isinstance(replay.end, Cancelled)


def test_a_flow_that_goes_on_as_a_new_run_from_a_branch_cancels_the_others_first():
    def again():
        yield from ask("go")
        flow.continue_as_new("customer 7")

    replay = begun(flow.all_of(cleaning("a"), again()))
    answer(replay, "go")
    assert waits(replay) == {(1, 1, 2): "clean a"}
    answer(replay, "clean a")
    assert isinstance(replay.end, FlowContinued)
    assert replay.end.args == ("customer 7",)


# Letting go


def test_a_program_that_is_let_go_of_runs_its_finally_and_what_that_asks_reaches_nobody():
    ran = []

    def stubborn(name):
        try:
            yield from ask(name)
        finally:
            ran.append(name)
            yield from ask(f"clean {name}")
            ran.append(f"cleaned {name}")

    replay = begun(flow.all_of(stubborn("a"), flow.first_of(stubborn("b"), ask("c"))))
    replay.close()
    assert sorted(ran) == ["a", "b"]
    assert not replay.waiting
    assert not replay.asked


# What is not right


def test_what_is_yielded_and_is_not_a_request_is_refused_where_it_stands():
    def body():
        yield 5

    end = begun(body()).end
    assert isinstance(end, Failed)
    assert isinstance(end.error, NotARequest)


def test_a_program_that_is_returned_and_not_yielded_from_is_refused():
    def body():
        yield from ask("a")
        return flow.sleep(5)

    replay = begun(body())
    answer(replay, "a")
    assert isinstance(replay.end, Failed)
    assert isinstance(replay.end.error, NotAProgram)


def test_a_program_that_was_started_before_is_no_branch():
    started = ask("a")
    next(started)
    end = begun(flow.all_of(started)).end
    assert isinstance(end, Failed)
    assert type(end.error).__name__ == "AlreadyUsed"


# Patches


def test_whether_a_change_is_in_force_is_no_step():
    def body():
        before = yield from flow.patched("tea")
        yield from ask("a")
        return before, (yield from flow.patched("tea"))

    replay = begun(body(), lambda change: change == "tea")
    assert waits(replay) == {(1,): "a"}
    answer(replay, "a")
    assert replay.end == Answered((True, True))


# Contexts

COLOR = ContextVar("COLOR", default="none")


def test_each_branch_has_context_variables_of_its_own():
    def painting(color):
        token = COLOR.set(color)
        yield from ask(color)
        seen = COLOR.get()
        COLOR.reset(token)
        return seen, COLOR.get()

    def body():
        COLOR.set("blue")
        painted = yield from flow.all_of(painting("red"), painting("green"))
        return painted, COLOR.get()

    replay = begun(body())
    answer(replay, "green")
    answer(replay, "red")
    assert replay.end == Answered(((("red", "blue"), ("green", "blue")), "blue"))
    assert COLOR.get() == "none"


# Any program, fed the same outcomes in the same order, gets to the same place

STEP = st.sampled_from("abcd").map(lambda name: ("ask", name))
PROGRAMS = st.recursive(
    STEP,
    lambda inner: st.one_of(
        st.tuples(st.just("in turn"), st.lists(inner, max_size=3)),
        st.tuples(st.just("all"), st.lists(inner, max_size=3)),
        st.tuples(st.just("first"), st.lists(inner, min_size=1, max_size=3)),
        st.tuples(st.just("finally"), inner, inner),
        st.tuples(st.just("catch"), inner),
    ),
    max_leaves=12,
)


def made(shape):
    match shape:
        case "ask", name:
            return (yield from ask(name))
        case "in turn", parts:
            values = [None] * len(parts)
            for place, part in enumerate(parts):
                values[place] = yield from made(part)
            return values
        case "all", parts:
            return (yield from flow.all_of(*map(made, parts)))
        case "first", parts:
            return (yield from flow.first_of(*map(made, parts)))
        case "finally", body, last:
            try:
                return (yield from made(body))
            finally:
                yield from made(last)
        case "catch", body:
            try:
                return (yield from made(body))
            except LookupError as error:
                return str(error)


# Which of those that wait is fed, and with what: an answer, an error, or that the flow is cancelled.
OUTCOMES = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from(("answer", "answer", "error", "cancel"))), max_size=30
)


def fed(shape, choices):
    """A replay that was fed, the outcomes that it was given, and where it stood behind each of them."""
    replay = begun(made(shape))
    given, stood = [], [standing(replay)]
    for number, (choice, kind) in enumerate(choices):
        if replay.end is not None:
            break
        paths = list(replay.waiting)
        path = () if kind == "cancel" else paths[choice % len(paths)]
        given.append((path, kind, number))
        give(replay, *given[-1])
        stood.append(standing(replay))
    return replay, given, stood


def give(replay, path, kind, number):
    if kind == "cancel":
        replay.cancel()
    else:
        replay.feed(path, Answered(number) if kind == "answer" else Failed(LookupError(f"outcome {number}")))


def standing(replay):
    end = replay.end
    notes = getattr(getattr(end, "error", end), "__notes__", [])
    return waits(replay), list(replay.asked), list(replay.withdrawn), repr(end), list(notes)


def bring_to_its_end(replay):
    """Cancel a flow, and answer all that it asks until it has ended."""
    replay.cancel()
    for _ in range(1000):
        if replay.end is not None:
            return
        replay.feed(next(iter(replay.waiting)), Answered(None))
    raise AssertionError(f"it does not end: {waits(replay)}")


@given(PROGRAMS, OUTCOMES)
def test_the_same_outcomes_in_the_same_order_lead_to_the_same_frontier_at_each_step(shape, choices):
    replay, outcomes, stood = fed(shape, choices)
    again = begun(made(shape))
    assert standing(again) == stood[0]
    for outcome, expected in zip(outcomes, stood[1:], strict=True):
        give(again, *outcome)
        assert standing(again) == expected
    for each in (replay, again):
        bring_to_its_end(each)
    assert standing(again) == standing(replay)


@given(PROGRAMS, OUTCOMES)
def test_a_flow_either_waits_for_something_or_has_ended(shape, choices):
    replay, _, _ = fed(shape, choices)
    assert bool(replay.waiting) == (replay.end is None)
    bring_to_its_end(replay)
    assert not replay.waiting


@given(PROGRAMS, OUTCOMES)
def test_a_path_is_asked_once_and_then_answered_or_withdrawn_or_it_waits(shape, choices):
    replay, outcomes, _ = fed(shape, choices)
    asked = list(replay.asked)
    answered = [path for path, _, _ in outcomes if path]
    assert len(set(asked)) == len(asked)
    assert sorted([*answered, *replay.withdrawn, *replay.waiting]) == sorted(asked)
    bring_to_its_end(replay)
