"""Where pytest and the command line come in: both get our `interpreters`, or say which other package stands before it.

This module has a name that nobody else uses. From it, a package `interpreters` of the user's own is seen before
anything of ours is missing in it.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any

_MARK = "pytest_plugin.py"
"""A file of our `interpreters`, by which it is known."""


def other_interpreters() -> str:
    """What to say where ``import interpreters`` gives another package than ours; nothing where it gives ours."""
    loaded = sys.modules.get("interpreters")
    try:
        spec = importlib.util.find_spec("interpreters") if loaded is None else loaded.__spec__
    except ValueError:  # a module that was put there by hand
        spec = None
    places = [*(spec.submodule_search_locations or [])] if spec is not None else []
    if any(Path(place, _MARK).exists() for place in places):
        return ""
    found = (spec.origin if spec is not None else None) or next(iter(places), None) or getattr(loaded, "__file__", None)
    return told(found or "a module without a file")


def told(other: object) -> str:
    """What to say of another package of this name."""
    ours = Path(__file__).with_name("interpreters")
    return (
        f"there are two packages named 'interpreters': {other} is found, and {ours}, of persist-effects, is not. "
        "Rename the first, or start where it is not on the path"
    )


def command() -> None:
    """The command ``persist-effects``."""
    try:
        if other := other_interpreters():
            sys.exit(f"persist-effects: {other}")
        from interpreters.cli import main
    except KeyboardInterrupt:
        sys.stderr.write("persist-effects: interrupted\n")
        sys.exit(130)
    main()


# A plugin for pytest, which is there in every project of an environment, also where nobody uses ours


def pytest_addoption(parser: Any, pluginmanager: Any) -> None:
    """Load the plugin, if it is ours that would be loaded."""
    if not other_interpreters():
        pluginmanager.import_plugin("interpreters.pytest_plugin")


def pytest_report_header(config: Any) -> str | None:
    """Say that the plugin was left out."""
    if config.pluginmanager.has_plugin("interpreters.pytest_plugin"):
        return None
    return f"persist-effects: its fixtures and options are not there: {other_interpreters()}"
