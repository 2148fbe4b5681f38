"""How programs are stepped, and every way in which that can go wrong."""

import traceback

import pytest

from persist_effects import (
    AlreadyUsed,
    Done,
    NotAProgram,
    NotARequest,
    Request,
    StoreUnavailable,
    Suspended,
    UnhandledEffect,
    all_of,
)
from persist_effects.errors import describe
from persist_effects.machine import check_fresh, outcome_of, perform, run, start
from persist_effects.requests import AllOf, Answered, Failed


class Ask(Request[str], frozen=True, tag="test/ask"):
    question: str


class Tell(Request[None], frozen=True, tag="test/tell"):
    text: str


def ask_twice():
    first = yield from perform(Ask("one"))
    second = yield from perform(Ask("two"))
    return [first, second]


def answer_upper(request):
    return request.question.upper()


def refuse(request):
    raise ValueError(f"refused {request.question}")


def test_a_program_is_driven_by_hand_step_by_step():
    step = start(ask_twice())
    assert isinstance(step, Suspended)
    assert step.request == Ask("one")
    step = step.resume("a")
    assert step.request == Ask("two")
    step = step.resume("b")
    assert isinstance(step, Done)
    assert step.value == ["a", "b"]


def test_run_answers_each_request_from_the_table():
    assert run(ask_twice(), {Ask: answer_upper}) == ["ONE", "TWO"]


def test_a_program_that_performs_nothing_is_done_at_once():
    def nothing():
        return 7
        yield

    assert start(nothing()).value == 7


def test_start_with_a_table_stops_at_the_first_request_that_no_row_answers():
    def mixed():
        name = yield from perform(Ask("name"))
        yield from perform(Tell(name))
        return (yield from perform(Ask("again")))

    step = start(mixed(), {Ask: answer_upper})
    assert step.request == Tell("NAME")
    assert step.resume(None).value == "AGAIN"


def test_steps_match_by_their_parts():
    match start(ask_twice()):
        case Suspended(request=Ask(question=question)):
            assert question == "one"
        case other:
            pytest.fail(f"{other} did not match")


def test_tables_merge_and_the_later_row_wins():
    table = {Ask: refuse} | {Ask: answer_upper}
    assert run(ask_twice(), table) == ["ONE", "TWO"]


def test_an_unhandled_effect_is_raised_at_the_yield_and_names_the_op():
    def careful():
        try:
            yield from perform(Tell("x"))
        except UnhandledEffect as error:
            return error.op

    assert run(careful(), {}) == "test/tell"
    with pytest.raises(
        UnhandledEffect,
        match=r"no handler answers 'test/tell': give the store a row for it, `open_store\(url, effects=\{Tell: …\}\)`",
    ):
        run(perform(Tell("x")), {})


@pytest.mark.parametrize("thing", [None, 7, "text", ask_twice, Ask])
def test_a_yield_of_something_else_is_refused_at_the_yield(thing):
    seen = []

    def wrong():
        try:
            yield thing
        except NotARequest as error:
            seen.append(str(error))
            raise

    with pytest.raises(NotARequest, match="which is not a Request: write `yield from perform"):
        run(wrong(), {})
    with pytest.raises(NotARequest):
        start(wrong())
    assert len(seen) == 2
    assert f"yielded {describe(thing)}, which" in seen[0]


def test_a_program_that_catches_the_refusal_goes_on():
    def stubborn():
        try:
            yield 7
        except NotARequest:
            return (yield from perform(Ask("better")))

    assert run(stubborn(), {Ask: answer_upper}) == "BETTER"


def test_a_handlers_error_is_thrown_in_at_the_guilty_yield():
    def careful():
        try:
            yield from perform(Ask("one"))
        except ValueError as error:
            return str(error)

    assert run(careful(), {Ask: refuse}) == "refused one"


def test_an_uncaught_error_leaves_through_every_frame_of_nested_programs():
    def inner():
        return (yield from perform(Ask("deep")))

    def outer():
        return (yield from inner())

    with pytest.raises(ValueError, match="refused deep") as caught:
        run(outer(), {Ask: refuse})
    names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert [name for name in names if name in ("run", "outer", "inner", "perform", "refuse")] == [
        "run",
        "outer",
        "inner",
        "perform",
        "refuse",
    ]


def test_finally_blocks_run_when_a_handler_raises():
    told = []

    def tidy():
        try:
            yield from perform(Ask("one"))
        finally:
            yield from perform(Tell("tidied"))

    with pytest.raises(ValueError, match="refused"):
        run(tidy(), {Ask: refuse, Tell: lambda request: told.append(request.text)})
    assert told == ["tidied"]


def test_a_keyboard_interrupt_in_a_handler_reaches_the_program():
    def interrupted(request):
        raise KeyboardInterrupt

    cleaned = []

    def tidy():
        try:
            yield from perform(Ask("one"))
        finally:
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(tidy(), {Ask: interrupted})
    assert cleaned == [True]


def test_a_handler_that_raises_stop_iteration_does_not_end_the_program_in_silence():
    def exhausted(request):
        return next(iter(()))

    with pytest.raises(RuntimeError, match="generator raised StopIteration"):
        run(perform(Ask("one")), {Ask: exhausted})


def test_a_program_runs_once():
    program = ask_twice()
    run(program, {Ask: answer_upper})
    with pytest.raises(AlreadyUsed, match=r"the program '.*ask_twice' was already started, and a program runs once"):
        run(program, {Ask: answer_upper})


def test_a_started_program_cannot_be_started_again():
    program = ask_twice()
    step = start(program)
    with pytest.raises(AlreadyUsed):
        start(program)
    assert step.resume("a").resume("b").value == ["a", "b"]


def test_a_program_cannot_start_itself():
    def narcissus():
        start(mirror[0])
        yield

    mirror = [narcissus()]
    with pytest.raises(AlreadyUsed):
        run(mirror[0], {})


@pytest.mark.parametrize("thing", [ask_twice, None, [1], Ask("one")])
def test_what_is_no_program_is_refused(thing):
    with pytest.raises(
        NotAProgram, match="is not a program: give the generator that calling a generator function makes"
    ):
        run(thing, {})


def test_programs_are_checked_together_before_any_is_started():
    good = ask_twice()
    with pytest.raises(AlreadyUsed):
        check_fresh(good, good)
    check_fresh(good)


@pytest.mark.parametrize("again", [lambda s: s.resume("a"), lambda s: s.throw(ValueError()), lambda s: s.close()])
@pytest.mark.parametrize("before", [lambda s: s.resume("a"), lambda s: s.close()])
def test_a_suspended_is_used_once(before, again):
    step = start(ask_twice())
    assert not step.used
    before(step)
    assert step.used
    with pytest.raises(AlreadyUsed, match=r"this Suspended at Ask\(question='one'\) cannot be .*: it was already"):
        again(step)


def test_throw_raises_where_the_program_waits_and_it_may_go_on():
    def careful():
        try:
            yield from perform(Ask("one"))
        except LookupError:
            return (yield from perform(Ask("two")))

    step = start(careful()).throw(LookupError())
    assert step.request == Ask("two")


def test_close_runs_the_finally_blocks_with_generator_exit():
    seen = []

    def tidy():
        try:
            yield from perform(Ask("one"))
        except GeneratorExit:
            seen.append("exit")
            raise
        finally:
            seen.append("finally")

    start(tidy()).close()
    assert seen == ["exit", "finally"]


def test_a_program_that_performs_while_it_is_closed_is_told_so():
    def clinging():
        try:
            yield from perform(Ask("one"))
        finally:
            yield from perform(Ask("two"))

    with pytest.raises(RuntimeError, match="generator ignored GeneratorExit"):
        start(clinging()).close()


def test_an_abandoned_run_closes_its_program():
    seen = []

    def tidy():
        try:
            yield from perform(Ask("one"))
        finally:
            seen.append("closed")

    class Odd(dict):
        def __missing__(self, kind):
            raise MemoryError("the driver itself failed")

    with pytest.raises(MemoryError):
        run(tidy(), Odd())
    assert seen == ["closed"]


# Several at once


def test_all_of_answers_in_order():
    assert run(all_of(ask_twice(), Ask("three"), perform(Ask("four"))), {Ask: answer_upper}) == (
        ["ONE", "TWO"],
        "THREE",
        "FOUR",
    )


def test_all_of_nothing_is_an_empty_tuple():
    assert run(all_of(), {}) == ()


def test_all_of_performs_its_requests_together_in_rounds():
    rounds = []

    def batch(request):
        rounds.append([part.question for part in request.requests])
        return [Answered(part.question) for part in request.requests]

    run(all_of(ask_twice(), ask_twice(), Ask("single")), {AllOf: batch})
    assert rounds == [["one", "one", "single"], ["two", "two"]]


def test_all_of_throws_each_error_into_the_program_that_met_it():
    def careful():
        try:
            return (yield from perform(Ask("bad")))
        except ValueError:
            return "recovered"

    def handler(request):
        if request.question == "bad":
            raise ValueError
        return request.question

    assert run(all_of(careful(), Ask("good")), {Ask: handler}) == ("recovered", "good")


def test_all_of_closes_the_others_when_one_raises():
    closed = []

    def tidy():
        try:
            return (yield from ask_twice())
        finally:
            closed.append(True)

    def batch(request):
        return [Failed(ValueError("first fails")), Answered("x")]

    with pytest.raises(ValueError, match="first fails"):
        run(all_of(Ask("bad"), tidy()), {AllOf: batch})
    assert closed == [True]


def test_all_of_nests():
    program = all_of(all_of(Ask("a"), Ask("b")), Ask("c"))
    assert run(program, {Ask: answer_upper}) == (("A", "B"), "C")


def test_all_of_refuses_what_is_no_program():
    with pytest.raises(NotAProgram):
        run(all_of(ask_twice), {Ask: answer_upper})


def test_a_request_knows_its_op_and_cannot_be_changed():
    request = Ask("one")
    assert request.op == "test/ask"
    with pytest.raises(AttributeError, match="immutable"):
        request.question = "other"


# Giving up


def tidying(told):
    """Waits in a nested program, and tells when it was tidied, each by a request."""

    def inner():
        try:
            return (yield from ask_twice())
        finally:
            yield from perform(Tell("tidied"))

    told.append("began")
    return (yield from inner())


def failing_first(told):
    def answer(request):
        if request.question == "bad":
            raise ValueError("first fails")
        return request.question

    return {Ask: answer, Tell: lambda request: told.append(request.text)}


def test_the_finally_of_a_program_beside_one_that_failed_may_perform_requests():
    told = []
    with pytest.raises(ValueError, match="first fails"):
        run(all_of(Ask("bad"), tidying(told), all_of(tidying(told), Ask("good"))), failing_first(told))
    assert told == ["began", "began", "tidied", "tidied"]


def test_an_error_of_the_cleaning_up_becomes_a_note_on_the_error_that_made_it_necessary():
    told = []

    def clumsy():
        try:
            yield from perform(Ask("good"))
            yield from perform(Ask("never"))
        finally:
            yield from perform(Ask("bad"))

    with pytest.raises(ValueError, match="first fails") as caught:
        run(all_of(clumsy(), Ask("bad"), tidying(told)), failing_first(told))
    assert caught.value.__notes__ == ["a program that was given up for this raised in turn: ValueError: first fails"]
    assert told == ["began", "tidied"]


def test_an_interrupt_during_the_cleaning_up_takes_the_errors_place_and_the_others_clean_up_too():
    told = []

    def tell(request):
        told.append(request.text)
        if told == ["began", "began", "tidied"]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(all_of(Ask("bad"), tidying(told), tidying(told)), {**failing_first(told), Tell: tell})
    assert told == ["began", "began", "tidied", "tidied"]


def test_a_program_that_is_given_up_cannot_take_that_for_an_error_of_its_own():
    seen = []

    def careful():
        try:
            return (yield from ask_twice())
        except Exception as error:
            seen.append(error)
        finally:
            seen.append("finally")

    with pytest.raises(ValueError, match="first fails"):
        run(all_of(Ask("bad"), careful()), failing_first([]))
    assert seen == ["finally"]


def test_all_of_that_is_closed_closes_each_program_plainly():
    closed = []

    def tidy():
        try:
            yield from ask_twice()
        finally:
            closed.append(True)

    start(all_of(tidy(), all_of(tidy(), tidy()))).close()
    assert closed == [True, True, True]


class InterruptedOnce(dict):
    """A handler table at whose second look-up an interrupt comes: between a handler and the program."""

    looked_up = 0

    def __getitem__(self, kind):
        self.looked_up += 1
        if self.looked_up == 2:
            raise KeyboardInterrupt
        return super().__getitem__(kind)


def test_an_interrupt_between_a_handler_and_the_program_is_raised_in_the_program_whose_finally_may_perform():
    told = []
    table = InterruptedOnce(failing_first(told))
    with pytest.raises(KeyboardInterrupt):
        run(tidying(told), table)
    assert told == ["began", "tidied"]


def test_what_cleaning_up_after_an_interrupt_meets_does_not_hide_the_interrupt():
    def lose(request):
        raise StoreUnavailable("lost")

    def interrupted(request):
        raise KeyboardInterrupt

    def tidy():
        try:
            yield from perform(Ask("?"))
        finally:
            yield from perform(Tell("the end"))

    with pytest.raises(KeyboardInterrupt) as caught:
        run(tidy(), {Ask: interrupted, Tell: lose})
    assert caught.value.__notes__ == ["a program that was given up for this raised in turn: StoreUnavailable: lost"]


def test_a_program_may_catch_an_interrupt_and_go_on():
    def stubborn():
        yield from perform(Ask("one"))
        try:
            yield from perform(Ask("two"))
        except KeyboardInterrupt:
            return (yield from perform(Ask("three")))

    assert run(stubborn(), InterruptedOnce({Ask: answer_upper})) == "THREE"


def test_a_function_that_makes_programs_is_taken_for_none_and_the_call_is_suggested():
    with pytest.raises(NotAProgram, match=r"is not a program: .*; did you mean ask_twice\(…\)\?"):
        run(ask_twice, {})
    with pytest.raises(NotAProgram, match=r"is not a program: .*; did you mean perform\(request\)\?"):
        run(Ask("one"), {})


def test_a_yield_from_a_request_is_told_to_perform_it():
    def forgetful():
        return (yield from Ask("one"))

    with pytest.raises(NotAProgram, match=r"Ask\(question='one'\) is a request, no program: write `yield from perform"):
        run(forgetful(), {Ask: answer_upper})


def test_an_outcome_is_looked_up_without_a_program():
    assert outcome_of(Ask("one"), {Ask: answer_upper}) == Answered("ONE")
    assert isinstance(outcome_of(Ask("one"), {Ask: refuse}).error, ValueError)
    assert outcome_of(Ask("one"), {}).error.kind == "Ask"
    assert outcome_of(AllOf((Ask("one"),)), {Ask: answer_upper}) == Answered([Answered("ONE")])
    assert isinstance(outcome_of(AllOf((7,)), {}).value[0].error, NotARequest)
