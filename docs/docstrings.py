"""An extension of Sphinx: docstrings on their way into the reference, and whether all that is public is there."""

import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.typing import ExtensionMetadata

_PROGRAM = "~collections.abc.Generator[~persist_effects.requests.Request[~typing.Any], ~typing.Any, "
_TABLE = (
    "~collections.abc.Mapping[type[~persist_effects.requests.Request[~typing.Any]], "
    "~collections.abc.Callable[[~typing.Any], ~typing.Any]]"
)
_ALIASES = {
    _PROGRAM: "~persist_effects.machine.Effect[",
    _TABLE: "~persist_effects.machine.Handlers",
    "<factory>": "...",
}


def setup(app: Sphinx) -> ExtensionMetadata:
    """Read docstrings before napoleon does, and look for the public names when all pages were read."""
    app.add_config_value("public_packages", [], "env", list)
    app.connect("autodoc-process-docstring", keep_sentences, priority=400)
    app.connect("autodoc-process-docstring", say_import, priority=600)
    app.connect("autodoc-process-signature", name_aliases)
    app.connect("autodoc-skip-member", leave_out_aliases)
    app.connect("source-read", list_room)
    app.connect("env-check-consistency", look_for_public_names)
    return {"parallel_read_safe": True}


# What is connected takes what Sphinx gives, by its place.
def keep_sentences(  # noqa: PLR0917
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Keep napoleon from taking what stands before a sentence's first colon for a type.

    It does so in ``Returns:``, which becomes a field here, and in the first line of what an attribute or constant is.
    """
    if what in {"attribute", "data", "property"}:
        lines[:0] = ["..", ""]
    if "Returns:" in lines:
        at = lines.index("Returns:")
        lines[at : at + 2] = [f":returns: {lines[at + 1].strip()}"]


def say_import(  # noqa: PLR0917
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    """Say first from where a module, or a public name, is imported."""
    room, _, short = name.rpartition(".")
    packages = [package for package in app.config.public_packages if exported(package).get(short) is thing]
    if what == "module":
        lines[:0] = [f"``from {room} import {short}``" if packages else f"``import {name}``", ""]
    elif packages:
        lines[:0] = [f"``from {packages[0]} import {short}``", ""]


def leave_out_aliases(  # noqa: PLR0917
    app: Sphinx, what: str, name: str, thing: object, skip: bool, options: object
) -> bool | None:
    """Leave out the fields of a NamedTuple, of which nothing is said but their numbers: the signature has them."""
    return True if (inspect.getdoc(thing) or "").startswith("Alias for field number") else None


def name_aliases(  # noqa: PLR0917
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Write a program's type as `Effect` and a handler table's as `Handlers`, as the code does."""
    for spelled, alias in _ALIASES.items():
        signature = signature and signature.replace(spelled, alias)
        returns = returns and returns.replace(spelled, alias)
    return signature, returns


def list_room(app: Sphinx, page: str, source: list[str]) -> None:
    """Have the index of a room list its pages for the navigation, so that the index itself stays plain Markdown."""
    if page.endswith("/index") and "{toctree}" not in source[0]:
        source[0] += "\n\n:::{toctree}\n:glob:\n:hidden:\n\n*\n:::\n"


def look_for_public_names(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of each public name that no page tells of, which includes those without a docstring."""
    told = [thing for thing in map(found, env.domains.python_domain.objects) if thing is not None]
    for package in app.config.public_packages:
        for name, thing in public_names(package):
            if not any(thing is one for one in told):
                logging.getLogger(__name__).warning(
                    "%s is public and not in the reference: write a docstring, and have a page show its module",
                    name,
                )


def exported(package: str) -> dict[str, Any]:
    """What a package exports, by name."""
    module = importlib.import_module(package)
    return {name: getattr(module, name) for name in module.__all__}


def public_names(package: str) -> Iterator[tuple[str, Any]]:
    """What a package exports; of modules among that, what they export, or what they define without an underscore."""
    for name, thing in exported(package).items():
        yield f"{package}.{name}", thing
        if isinstance(thing, ModuleType):
            for inner, part in vars(thing).items():
                if inner in getattr(thing, "__all__", [inner]) and is_defined_in(thing, inner, part):
                    yield f"{package}.{name}.{inner}", part


def is_defined_in(module: ModuleType, name: str, thing: object) -> bool:
    """Whether a class or function is a module's own, and public."""
    own = inspect.isclass(thing) or inspect.isfunction(thing)
    return own and not name.startswith("_") and thing.__module__.startswith(module.__name__)


def found(name: str) -> Any:
    """What has a full name; None for what is within a class."""
    module, _, last = name.rpartition(".")
    if not module:
        return importlib.import_module(name)
    try:
        # A function may have the name of its module, as `persist_effects.trace.replay` has.
        return getattr(importlib.import_module(module), last, None)
    except ModuleNotFoundError:
        return None
