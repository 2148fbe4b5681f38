"""What is easily written in the place of a program or a request: each slip is refused, with how to write it."""

import re

import pytest

from persist_effects import (
    Append,
    InvalidRequest,
    KvPut,
    NotAProgram,
    NotARequest,
    all_of,
    kv,
    log,
    perform,
    program,
    transact,
)
from persist_effects.requests import KvGet


def write(number=1):
    return log.append("s", "t", number)


def has_no_yield():
    log.last_seq  # noqa: B018 - as one who forgot to call it


async def asynchronous():
    pass


async def asynchronous_generator():
    yield KvGet("k")


GIVEN_TO_RUN = {
    "a module": (lambda: log, r"persist_effects.log is a module: call a function of it, such as log\.append\(…\)"),
    "a function": (lambda: log.append, r"did you mean append\(…\)\?"),
    "perform": (lambda: perform, r"did you mean perform\(…\)\?"),
    "a lambda": (lambda: lambda: write(), r"did you mean \(lambda: …\)\(\)\?"),
    "a request": (lambda: KvGet("k"), r"did you mean perform\(request\)\?"),
    "a class of requests": (lambda: KvGet, r"KvGet is a class: did you mean perform\(request\), of a request\?"),
    "another class": (lambda: dict, r"dict is a class: did you mean a function\?"),
    "a list of programs": (lambda: [write(), write()], r"store\.run_many\(\[…\]\) and all_of\(first, second, …\)"),
    "a tuple of programs": (lambda: (write(), write()), r"all_of\(first, second, …\)"),
    "a coroutine": (asynchronous, "made by an async function: a program is made by a plain `def`"),
    "an async generator": (asynchronous_generator, "made by an async function: a program is made by a plain `def`"),
    "an async function": (lambda: asynchronous, "asynchronous is an async function: a program is made by a plain"),
    "what a function without yield returned": (has_no_yield, "a function without `yield from` runs at once"),
    "a number": (lambda: 7, "an int, 7, is not a program: give the generator that calling a generator function makes"),
}


@pytest.mark.parametrize("slip", GIVEN_TO_RUN)
@pytest.mark.parametrize("door", ["run", "start", "run_many", "all_of"])
def test_what_is_no_program_is_refused_with_what_to_write(store, slip, door):
    make, words = GIVEN_TO_RUN[slip]
    if (slip, door) == ("a request", "all_of"):
        # There it may stand; a list of it may not.
        words = "for several programs"
    found = make()
    with pytest.raises(NotAProgram, match=words):
        {
            "run": lambda: store.run(found),
            "start": lambda: store.start(found),
            "run_many": lambda: store.run_many([kv.get("k"), found]),
            "all_of": lambda: store.run(all_of([found] if slip == "a request" else found)),
        }[door]()


def test_one_program_in_the_place_of_several_is_told_to_stand_in_a_list(store):
    with pytest.raises(NotAProgram, match="Where several programs are given, put them in a list"):
        store.run_many(kv.get("k"))


def yields_a_program():
    yield write()


def yields_a_pair():
    yield from (write(1), write(2))


def yields_a_list_further_inside():
    yield from yields_a_list()


def yields_a_list():
    yield from [write(1), write(2)]


def yields_from_an_expression():
    yield from (write(number) for number in (1, 2))


def yields_a_function():
    yield log.append


def yields_a_coroutine():
    yield asynchronous()


def returns_a_program():
    yield from kv.has("k")
    return write()


def returns_a_program_inside_of_all_of():
    return (yield from all_of(kv.has("k"), returns_a_program()))


def appends_plainly():
    yield from perform(Append("s", "t", 1))


def transacts_a_list():
    yield from transact([KvPut("k", 1)])


def transacts_programs():
    yield from transact(kv.put("k", 1), kv.put("l", 1))


IN_A_PROGRAM = [
    (
        yields_a_program,
        NotARequest,
        r"yielded the program 'append', which is not a Request: write `yield from append\(…\)`",
    ),
    (yields_a_pair, NotARequest, r"write `yield from all_of\(first, second, …\)` where several programs are to run"),
    (yields_a_list_further_inside, NotARequest, r"write `yield from all_of\(first, second, …\)`"),
    (yields_from_an_expression, NotARequest, r"or a `yield from` for each, such as `yield from append\(…\)`"),
    (yields_a_function, NotARequest, r"or did you mean `yield from append\(…\)`\?"),
    (yields_a_coroutine, NotARequest, "nothing is awaited in a program"),
    (
        returns_a_program,
        NotAProgram,
        r"'returns_a_program' returned the program 'append', .*: write `return \(yield from append\(…\)\)`",
    ),
    (returns_a_program_inside_of_all_of, NotAProgram, "'returns_a_program' returned the program 'append'"),
    (
        appends_plainly,
        InvalidRequest,
        r"got a str, 't': write Append\('s', \(Draft\(type, data\),\)\), or in a program log\.append\('s', ",
    ),
    (transacts_a_list, InvalidRequest, r"each as an argument of its own: transact\(\*writes\)"),
    (transacts_programs, InvalidRequest, r"KvPut\(key, value\) in the place of kv\.put\(key, value\)"),
]


def through(door, store, make):
    if door == "run_many":
        raise store.run_many([make(), kv.get("k")], return_exceptions=True)[0]
    getattr(store, door)(make())


@pytest.mark.parametrize(("make", "kind", "words"), IN_A_PROGRAM)
@pytest.mark.parametrize("door", ["run", "start", "run_many"])
def test_a_slip_in_a_program_is_refused_with_what_to_write_and_writes_nothing(store, make, kind, words, door):
    with pytest.raises(kind, match=words):
        through(door, store, make)
    assert store.run(log.streams()) == store.run(kv.keys()) == []


def test_a_request_in_the_place_of_a_program_is_told_to_be_performed(store):
    def forgetful():
        yield from KvPut("k", 1)

    with pytest.raises(NotAProgram, match="is a request, no program: write `yield from perform"):
        store.run(forgetful())


def test_a_generator_that_is_no_program_may_be_returned(store):
    def letters():
        yield from kv.has("k")
        return (letter for letter in "ab")

    assert list(store.run(letters())) == ["a", "b"]


@pytest.mark.parametrize("wrong", [7, dict, asynchronous, asynchronous_generator])
def test_only_a_plain_function_can_be_marked(wrong):
    with pytest.raises(InvalidRequest, match=re.escape("mark a function that is made with `def`")):
        program(wrong)
