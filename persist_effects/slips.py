"""What was meant, where something is not a program or not a request: advice for the errors that refuse it."""

import copy
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FunctionType,
    GeneratorType,
    MethodType,
    ModuleType,
)
from typing import Any

from persist_effects.errors import describe, repr_of
from persist_effects.programs import refused
from persist_effects.requests import Request

_IS_ASYNC = 0x80 | 0x200  # the bits of `co_flags` of async functions and async generator functions


def said(found: object) -> str:
    """How a message calls what is not what it should be: a program by its name.

    >>> from persist_effects import kv
    >>> program = kv.get("color")
    >>> _ = next(program)
    >>> said(program), said(7)
    ("the program 'get'", 'an int, 7')
    """
    if isinstance(found, Request):
        return repr_of(found, 120)
    return f"the program {found.__qualname__!r}" if isinstance(found, GeneratorType) else describe(found)


def instead_of_program(found: object) -> str:
    """What to write where this was given to be run, after "give the generator that … makes"; "" where nobody knows.

    >>> from persist_effects import kv
    >>> instead_of_program(kv.get)
    '; did you mean get(…)?'
    """
    _leave_to_the_error(found)
    if isinstance(found, Request):
        return "; did you mean perform(request)? Where several programs are given, put them in a list"
    if isinstance(found, FunctionType | MethodType):
        if found.__code__.co_flags & _IS_ASYNC:
            return f"; {found.__name__} is an async function: {_PLAIN}"
        call = "(lambda: …)()" if found.__name__ == "<lambda>" else f"{found.__name__}(…)"
        return f"; did you mean {call}?"
    if isinstance(found, type):
        called = "perform(request), of a request" if issubclass(found, Request) else "a function"
        return f"; {found.__name__} is a class: did you mean {called}?"
    if isinstance(found, ModuleType):
        return f"; {found.__name__} is a module: call a function of it, such as {_example_of(found)}"
    if isinstance(found, CoroutineType | AsyncGeneratorType):
        return f"; it was made by an async function: {_PLAIN}"
    if isinstance(found, list | tuple):
        return "; for several programs there are store.run_many([…]) and all_of(first, second, …)"
    if found is None:
        return "; a function without `yield from` runs at once and returns its value, here None"
    return ""


def instead_of_request(program: Any, found: object) -> str:
    """What to write where a program yielded this, which is not a request.

    >>> from persist_effects import kv
    >>> instead_of_request(None, kv.get("color"))
    'write `yield from get(…)`'
    """
    iterated = _iterated(program)
    _leave_to_the_error(found)
    if isinstance(found, GeneratorType):
        name = found.__name__
        if iterated is not None:
            _leave_to_the_error(iterated)
            return (
                "write `yield from all_of(first, second, …)` where several programs are to run, "
                f"or a `yield from` for each, such as `yield from {name}(…)`"
            )
        return f"write `yield from {name}(…)`"
    if isinstance(found, FunctionType | MethodType) and not found.__code__.co_flags & _IS_ASYNC:
        return f"write `yield from perform(request)`, or did you mean `yield from {found.__name__}(…)`?"
    if isinstance(found, CoroutineType):
        return (
            "nothing is awaited in a program: write `yield from perform(request)`, whose row may be an async function"
        )
    return "write `yield from perform(request)`, or `yield from` before the call of another program"


_PLAIN = "a program is made by a plain `def`, and asks with `yield from`; its effects' rows may be async"


def _example_of(module: ModuleType) -> str:
    name = module.__name__.rpartition(".")[2]
    first = next((key for key, value in vars(module).items() if key[0] != "_" and _is_own(value, module)), "…")
    return f"{name}.{first}(…)"


def _is_own(value: object, module: ModuleType) -> bool:
    return isinstance(value, FunctionType) and value.__module__ == module.__name__


def _iterated(program: Any) -> Any:
    """What a program goes through with ``yield from`` that is not a program: the rest of it, or a generator of such."""
    inner = program
    while isinstance(inner, GeneratorType) and isinstance(inner.gi_yieldfrom, GeneratorType):
        inner = inner.gi_yieldfrom
    if not isinstance(inner, GeneratorType):
        return None
    if inner.gi_yieldfrom is None:
        return () if inner.__name__ == "<genexpr>" else None
    try:
        return list(copy.copy(inner.gi_yieldfrom))
    except Exception:
        # It cannot be copied: then its rest is not known.
        return ()


def _leave_to_the_error(found: object) -> None:
    """Nobody else shall tell of it that it was never run, for the error does."""
    if isinstance(found, CoroutineType):
        found.close()
    elif isinstance(found, GeneratorType):
        refused(found)
    elif isinstance(found, list | tuple):
        refused(*found)
