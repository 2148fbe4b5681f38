"""The example `examples/courses.py`: what it prints, and that no race, crash or lost answer breaks its rules."""

import sys
from functools import partial

import pytest
from places import EXAMPLES

from interpreters import Store, open_store
from interpreters.explore import explore, explore_crashes, explore_effects
from interpreters.stores.memory import MemoryStore
from persist_effects import all_of, testing
from persist_effects.requests import Transact

sys.path.insert(0, str(EXAMPLES))

import courses

TRANSCRIPT = """\
done
done
done
done
refused: algebra is full
done
done
refused: algebra is full
done
refused: botany has 1 students
done
refused: the term is over
students in algebra: 1
"""


@pytest.mark.parametrize("url", ["memory:", "file:{}/store", "sqlite:{}/store.db", "spawn:memory:"])
def test_it_prints_this(tmp_path, capsys, url):
    courses.main(url.format(tmp_path))
    assert capsys.readouterr().out == TRANSCRIPT


def prepared(store=None):
    """A store with a course that has one seat, one that has two, and a student who has one course already."""
    store = open_store("memory:") if store is None else store
    for program in (courses.offer("algebra", 1), courses.offer("chess", 2), courses.offer("drama", 9)):
        store.run(program)
    store.run(courses.subscribe("ada", "drama"))
    return store


def rules_hold(outcomes):
    yield from courses.check_courses()


subscribe, resize, leave, end_term = (
    lambda *names, function=function: partial(function, *names)
    for function in (courses.subscribe, courses.resize, courses.leave, courses.end_term)
)
RACES = {
    "two for the last seat": {"ada": subscribe("ada", "algebra"), "bob": subscribe("bob", "algebra")},
    "three for two seats": {name: subscribe(name, "chess") for name in ("ada", "bob", "cy")},
    "one student, two courses, and one more is allowed": {
        "algebra": subscribe("ada", "algebra"),
        "chess": subscribe("ada", "chess"),
    },
    "the term ends meanwhile": {"ada": subscribe("ada", "chess"), "end": end_term()},
    "two, and the term ends": {
        "ada": subscribe("ada", "algebra"),
        "bob": subscribe("bob", "algebra"),
        "end": end_term(),
    },
    "the course becomes smaller": {"ada": subscribe("ada", "chess"), "smaller": resize("chess", 0)},
    "a seat is freed": {
        "ada": leave("ada", "drama"),
        "bob": subscribe("bob", "drama"),
        "ada too": subscribe("ada", "chess"),
    },
}


@pytest.mark.parametrize("race", RACES)
def test_no_interleaving_breaks_a_rule(race):
    report = explore(RACES[race], prepared, rules_hold)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report
    assert report.checked > 1


@pytest.mark.parametrize("race", ["two for the last seat", "the term ends meanwhile"])
def test_no_crash_of_one_of_them_breaks_a_rule(race):
    assert explore(RACES[race], prepared, rules_hold, crashes=True).verdict == "passed"


class Careless:
    """A memory store that makes only some of the checks of a transaction."""

    def __init__(self, is_made):
        inner = MemoryStore()

        def transact(request):
            written = {getattr(write, "stream", "") for write in request.writes}
            checks = tuple(check for check in request.checks if is_made(check.stream, written))
            return inner.handlers[Transact](Transact(request.writes, checks))

        self.handlers, self.close = {**inner.handlers, Transact: transact}, inner.close


MUTANTS = {
    "no stream is checked": lambda stream, written: False,
    "only what is written is checked": lambda stream, written: stream in written,
    "students are not checked": lambda stream, written: not stream.startswith("students/"),
    "courses are not checked": lambda stream, written: not stream.startswith("courses/"),
}
CAUGHT_BY = {
    "no stream is checked": set(RACES) - {"a seat is freed"},
    "only what is written is checked": {"the term ends meanwhile", "two, and the term ends"},
    "students are not checked": {"one student, two courses, and one more is allowed"},
    "courses are not checked": {
        "two for the last seat",
        "three for two seats",
        "two, and the term ends",
        "the course becomes smaller",
    },
}


@pytest.mark.exploration
@pytest.mark.parametrize("name", MUTANTS)
def test_the_exploration_catches_it_where(name):
    def stores():
        return prepared(Store(Careless(MUTANTS[name])))

    caught = {race for race, programs in RACES.items() if explore(programs, stores, rules_hold).verdict == "failed"}
    assert caught == CAUGHT_BY[name]


def last_seat():
    yield from courses.offer("algebra", 1)
    yield from all_of(courses.subscribe("ada", "algebra"), courses.subscribe("bob", "algebra"))
    yield from courses.end_term()


def rules_hold_whatever_was_acked(acked, maybe):
    yield from courses.check_courses()


@pytest.mark.exploration
def test_no_crash_of_the_disk_breaks_a_rule():
    report = explore_crashes(last_seat, rules_hold_whatever_was_acked)
    assert report.verdict == "passed", report


def test_no_fault_of_an_effect_breaks_a_rule():
    report = explore_effects(last_seat, lambda: open_store("memory:"), rules_hold_whatever_was_acked, depth=1)
    assert report.verdict == "passed", report


def test_a_decision_is_tested_without_a_store():
    full = testing.given([("offered", 1), ("seat taken", "bob")]).fold(courses.step, courses.Known())
    full.when(lambda known: courses.to_subscribe(known, "ada", "algebra")).then(courses.Refused("algebra is full"))


def test_programs_that_race_in_threads_of_rounds_keep_the_rules(tmp_path):
    with open_store(f"sqlite:{tmp_path}/a.db") as store:
        store.run(courses.offer("algebra", 3))
        results = store.run_many(courses.subscribe(f"s-{number}", "algebra") for number in range(8))
        assert courses.told(results).count("done") == 3
        store.run(courses.check_courses())
