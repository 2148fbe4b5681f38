"""What explorations are given, checked at the door: programs, checks, and makers of stores."""

import inspect
from collections.abc import Callable
from typing import Any

from interpreters.explore.words import name_of
from interpreters.runtime.interpreter import Interpreter
from interpreters.runtime.store import Store
from persist_effects import machine
from persist_effects.errors import InvalidRequest, NotAProgram, describe
from persist_effects.machine import Effect
from persist_effects.programs import refused
from persist_effects.requests import Outcome, Request

ProgramMaker = Callable[[], Effect[Any]]
"""A program before it runs: what is explored runs again and again, each time anew."""

StoreFactory = Callable[[], Store | Interpreter]

CheckOfWrites = Callable[[list[tuple[Request[Any], Any]], list[Request[Any]]], Effect[Any]]
"""A program that raises where a state is wrong. It is given the writes that were acknowledged, with their answers, and
those of which nobody knows."""

Invariant = Callable[[], Effect[Any]]
"""Likewise, of any state on the way: it only reads."""

CheckOfOutcomes = Callable[[list[Outcome]], Effect[Any]]
"""Likewise, of programs that have all ended: it is given how."""


def new_store(store_factory: StoreFactory) -> Store:
    """What a factory makes, as a `Store`. Raises `InvalidRequest` where that is none.

    >>> new_store("memory:")
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: store_factory is a str, 'memory:': give a function that makes a fresh ...
    """
    made: Any = store_factory() if callable(store_factory) else None
    try:
        return made if isinstance(made, Store) else Store(made)
    except InvalidRequest:
        gave = f" and gave {describe(made)}" if callable(store_factory) else ""
        raise InvalidRequest(
            f"store_factory is {describe(store_factory)}{gave}: give a function that makes a fresh store, "
            "such as lambda: open_store('memory:')"
        ) from None


def check_stores(store_factory: StoreFactory) -> None:
    """Refuse a factory that gives no store, or the same one again."""
    with new_store(store_factory) as one:
        pass
    with new_store(store_factory) as other:
        if one.interpreter is other.interpreter:
            raise InvalidRequest(
                f"store_factory gave the same {type(one.interpreter).__name__} twice: make a fresh store in each call, "
                "such as lambda: open_store('memory:')"
            )


def check_program(make: Any, name: str = "program") -> None:
    """Refuse what is not a function that makes a fresh program.

    >>> check_program(7)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: program is an int, 7: give a function that makes a program, ...
    """
    several = ", or a list of them" if name == "program" else ""
    if inspect.isgenerator(make):
        raise InvalidRequest(
            f"{name} is the generator {make.__qualname__!r}: give the function, not the generator it made"
        )
    if not callable(make):
        raise InvalidRequest(f"{name} is {describe(make)}: give a function that makes a program{several}")
    if trouble := trouble_in_a_call(make):
        raise InvalidRequest(f"{name} {name_of(make)!r} takes arguments ({trouble}): give lambda: {name_of(make)}(…)")
    if inspect.isgeneratorfunction(make):
        return
    one, other = make(), make()
    # They are made to be looked at.
    refused(one, other)
    try:
        machine.check_fresh(one)
    except NotAProgram as error:
        raise InvalidRequest(f"{name} {name_of(make)!r} makes no program: {error}") from None
    if one is other:
        raise InvalidRequest(f"{name} {name_of(make)!r} gives the same generator twice: make a fresh one in each call")


def checked_check(check: Any, *given: str) -> Callable[..., Effect[Any]]:
    """A check of what was acknowledged, and what may have been; or of what is named. Raises `InvalidRequest` else.

    >>> checked_check(7)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: check is an int, 7: give a generator function of (acked, maybe)
    """
    names = given or ("acked", "maybe")
    told = ", ".join(names)
    if not inspect.isgeneratorfunction(check):
        raise InvalidRequest(f"check is {describe(check)}: give a generator function of ({told})")
    if trouble := trouble_in_a_call(check, *([] for _ in names)):
        raise InvalidRequest(f"check {name_of(check)!r} takes other arguments than ({told}): {trouble}")
    made: Callable[..., Effect[Any]] = check
    return made


def checked_invariant(invariant: Any) -> Invariant | None:
    """An invariant, or None. Raises `InvalidRequest` for what is none.

    >>> checked_invariant(7)
    Traceback (most recent call last):
    persist_effects.errors.InvalidRequest: invariant is an int, 7: give a generator function without arguments
    """
    if invariant is None:
        return None
    if not inspect.isgeneratorfunction(invariant):
        raise InvalidRequest(f"invariant is {describe(invariant)}: give a generator function without arguments")
    if trouble := trouble_in_a_call(invariant):
        raise InvalidRequest(f"invariant {name_of(invariant)!r} takes arguments ({trouble}): make it take none")
    made: Invariant = invariant
    return made


def trouble_in_a_call(function: Callable[..., Any], *arguments: Any) -> str:
    """Why a function cannot be called with these arguments; nothing where it can, or does not say."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        return str(error)
    except ValueError:
        return ""
    return ""
