"""Context variables: what a program sets, it sees again at its next step, and no other program does.

So it is wherever several programs go on in one thread: each has a context of its own, as a task of asyncio's has. What
a row of the user's own sees is the context of the program that asked for it.
"""

import asyncio
from contextlib import contextmanager
from contextvars import ContextVar, copy_context

import pytest
import trio

from interpreters import open_store
from interpreters.explore.effects.explore import explore_effects
from interpreters.explore.schedule.explore import explore
from interpreters.explore.schedule.simulate import simulate
from persist_effects import Request, UnhandledEffect, all_of, kv, perform
from persist_effects.machine import Together, run
from persist_effects.requests import Answered

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Who(Request[str], frozen=True, tag="contexts/who"):
    """Asks for the tenant that the row sees."""


def who_now(request):
    return tenant.get()


async def who_awaited(request):
    await asyncio.sleep(0)
    return tenant.get()


def who_as_a_program(request):
    yield from kv.has("a")
    return tenant.get()


@contextmanager
def acting_for(name):
    token = tenant.set(name)
    try:
        yield
    finally:
        tenant.reset(token)


def setting(name):
    """What it saw first, after its request, and when it was done."""
    before = tenant.get()
    tenant.set(name)
    yield from kv.put(name, 1)
    return before, tenant.get()


def asking(name):
    with acting_for(name):
        yield from kv.has("a")
        return (yield from perform(Who()))


@pytest.fixture(params=["memory", "file"])
def store(request, tmp_path):
    url = "memory:" if request.param == "memory" else f"file:{tmp_path / 'store'}"
    with open_store(url, effects={Who: who_now}) as opened:
        yield opened


APART = [("nobody", "a"), ("nobody", "b"), ("nobody", "c")]


def test_what_a_program_of_run_many_sets_no_other_one_sees_nor_whoever_ran_them(store):
    assert store.run_many(setting(name) for name in "abc") == APART
    assert tenant.get() == "nobody"


def test_what_was_set_around_run_many_each_program_sees(store):
    with acting_for("all"):
        assert store.run_many([asking("a"), setting("b")]) == ["a", ("all", "b")]


def test_a_variable_may_be_reset_in_a_later_step(store):
    def acting(name):
        with acting_for(name):
            yield from kv.put(name, 1)
            with acting_for(f"{name} again"):
                yield from kv.put(name, 2)
            assert tenant.get() == name
        return tenant.get()

    assert store.run_many(acting(name) for name in "abc") == ["nobody"] * 3


def test_a_program_that_is_given_up_cleans_up_in_its_own_context(store):
    seen = []

    def acting(name):
        with acting_for(name):
            try:
                yield from kv.get("a")
                yield from kv.get("a")
            finally:
                yield from kv.put(name, 1)
                seen.append((name, tenant.get(), (yield from perform(Who()))))

    def interrupted():
        yield from kv.get("a")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        store.run_many([acting("a"), interrupted(), acting("c")])
    assert seen == [("a", "a", "a"), ("c", "c", "c")]
    assert not getattr(caught.value, "__notes__", [])


def test_an_error_is_met_in_the_context_of_the_program_that_asked(store):
    class Unanswered(Request[int], frozen=True, tag="contexts/unanswered"):
        pass

    def refused(name):
        with acting_for(name):
            try:
                yield from perform(Unanswered())
            except UnhandledEffect:
                return tenant.get()

    assert store.run_many(refused(name) for name in "abc") == ["a", "b", "c"]


def test_a_row_sees_the_context_of_the_program_that_asked(store):
    assert store.run(asking("a")) == "a"
    assert store.run_many(asking(name) for name in "abc") == ["a", "b", "c"]
    assert store.run(all_of(asking("a"), asking("b"), Who())) == ("a", "b", "nobody")
    assert store.run_many(all_of(asking(name), asking(name + name)) for name in "abc") == [
        ("a", "aa"),
        ("b", "bb"),
        ("c", "cc"),
    ]


def test_programs_of_all_of_are_apart_from_one_another_and_from_the_one_that_performs_them(store):
    def outer():
        parts = yield from all_of(*[setting(name) for name in "abc"])
        return list(parts), tenant.get()

    assert store.run(outer()) == (APART, "nobody")
    assert run(outer(), store.handlers) == (APART, "nobody")
    assert store.run_many([outer(), outer()]) == [(APART, "nobody")] * 2


def test_a_part_that_is_given_up_cleans_up_in_its_own_context(store):
    def acting(name):
        with acting_for(name):
            yield from kv.get(name)
            yield from kv.get(name)

    def failing():
        yield from kv.get("a")
        raise KeyError("told")

    with pytest.raises(KeyError, match="told") as caught:
        store.run(all_of(acting("a"), failing(), acting("c")))
    assert not getattr(caught.value, "__notes__", [])


def test_a_part_that_is_closed_with_its_program_cleans_up_in_its_own_context():
    def acting(name):
        with acting_for(name):
            yield from kv.get(name)

    program = all_of(acting("a"), acting("b"))
    next(program)
    program.close()
    assert tenant.get() == "nobody"


@pytest.mark.parametrize("row", [who_now, who_awaited, who_as_a_program])
def test_tasks_and_the_parts_of_a_task_are_apart(tmp_path, row):
    async def go(store):
        alone = await asyncio.gather(*[store.arun(setting(name)) for name in "abc"])
        asked = await asyncio.gather(*[store.arun(asking(name)) for name in "abc"])
        parts = await store.arun(all_of(asking("a"), asking("b"), Who()))
        return alone, asked, parts

    for url in ("memory:", f"file:{tmp_path / 'store'}"):
        with open_store(url, effects={Who: row}) as store:
            assert asyncio.run(go(store)) == (APART, ["a", "b", "c"], ("a", "b", "nobody"))


def test_the_parts_of_a_task_of_trio_are_apart():
    async def who(request):
        await trio.lowlevel.checkpoint()
        with trio.CancelScope():
            await trio.sleep(0)
        return tenant.get()

    with open_store("memory:", effects={Who: who}) as store:
        assert trio.run(store.arun, all_of(asking("a"), asking("b"), Who())) == ("a", "b", "nobody")


def test_an_awaited_row_of_a_part_meets_its_cancellation_in_the_parts_context():
    met = []

    async def who(request):
        try:
            started.set()
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            met.append(tenant.get())
            raise

    async def go():
        nonlocal started
        started = asyncio.Event()
        task = asyncio.ensure_future(store.arun(all_of(asking("a"))))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    started = None
    with open_store("memory:", effects={Who: who}) as store:
        asyncio.run(go())
    assert met == ["a"]


def new_store():
    return open_store("memory:", effects={Who: who_now})


def see_apart(name):
    def go():
        assert tenant.get() == "nobody"
        with acting_for(name):
            yield from kv.put(name, 1)
            assert (yield from perform(Who())) == name
            assert (yield from all_of(asking("part"), Who())) == ("part", name)
            tenant.set(f"{name} at the end")
            yield from kv.get(name)

    return go


def test_interleaved_programs_are_apart_and_so_is_each_order_from_the_next():
    exploration = explore([see_apart("a"), see_apart("b")], new_store)
    assert exploration.verdict == "passed", str(exploration)
    assert tenant.get() == "nobody"


def test_simulated_programs_are_apart():
    for seed in range(5):
        simulate([see_apart("a"), see_apart("b")], store=new_store(), seed=seed)
    assert tenant.get() == "nobody"


def test_each_life_of_a_program_under_faults_begins_in_a_context_of_its_own():
    def check(acked, maybe):
        yield from kv.has("a")
        assert tenant.get() == "nobody"

    exploration = explore_effects(see_apart("a"), new_store, check)
    assert exploration.verdict == "passed", str(exploration)
    assert tenant.get() == "nobody"


def test_programs_that_are_stepped_together_by_hand_are_apart():
    together = Together([setting(name) for name in "abc"])
    together.resume([Answered(1)] * 3)
    assert [outcome.value for outcome in together.outcomes] == APART


def test_a_copy_of_the_context_is_what_a_program_begins_with():
    with acting_for("caller"):
        context = copy_context()
        assert context.run(open_store("memory:").run_many, [setting("a")]) == [("caller", "a")]
        assert context[tenant] == "caller"
