"""The programs that are given, checked at the door, each with a name of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

from interpreters.explore.inputs import ProgramMaker, check_program
from interpreters.explore.words import name_of
from persist_effects.errors import InvalidRequest, describe

Programs = ProgramMaker | Sequence[ProgramMaker] | Mapping[str, ProgramMaker]
"""Functions without arguments, each of which makes a fresh program; in a dict, under the names to tell them by."""


def named_programs(programs: Programs) -> tuple[tuple[str, ...], tuple[ProgramMaker, ...]]:
    """The names of the programs, and the functions that make them. Raises `InvalidRequest` for anything else.

    >>> def pay():
    ...     yield
    >>> named_programs([pay, pay])[0]
    ('pay', 'pay 2')
    """
    makers: Sequence[Any]
    if isinstance(programs, Mapping):
        names, makers = [*programs], [*programs.values()]
        for name in names:
            if type(name) is not str:
                raise InvalidRequest(f"a program's name is {describe(name)}: give a str")
    else:
        makers = [*programs] if isinstance(programs, list | tuple) else [programs]
        names = []
    if not makers:
        raise InvalidRequest("there are no programs: give functions that make programs, in a list or a dict by name")
    for make in makers:
        check_program(make)
    return tuple(names or _names_of(makers)), tuple(makers)


def _names_of(makers: Sequence[Any]) -> list[str]:
    names: list[str] = []
    for make in makers:
        name = wanted = name_of(make)
        number = 1
        while name in names:
            number += 1
            name = f"{wanted} {number}"
        names.append(name)
    return names
