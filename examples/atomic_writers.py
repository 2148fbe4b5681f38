"""Three packages that write files atomically, tried over every crash: what is there afterwards, and what is not.

    pip install atomicwrites boltons safer
    python examples/atomic_writers.py [PACKAGE] [--report]

Each replaces a file of settings that is there already. Three questions are asked of what a loss of power may leave:

whole   the file is the old one or the new one, never empty, torn or gone
kept    after the call has returned, the file is the new one
again   the same call, made after the crash, writes the file

To write atomically is not to write durably. Which of the two a package promises stands in its own documentation, so a
"no" here need not be a fault: see docs/how-to/explore-files.md. A package that is not installed is said to be missing.
"""

import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from interpreters.explore import Report
from interpreters.explore.files import explore_files

OLD, NEW, NEWEST = "color = red\n", "color = green\n", "color = blue\n"

Save = Callable[[Path, str], None]


def save_by_atomicwrites(path: Path, text: str) -> None:
    with import_module("atomicwrites").atomic_write(path, overwrite=True) as file:
        file.write(text)


def save_by_boltons(path: Path, text: str) -> None:
    with import_module("boltons.fileutils").atomic_save(path, text_mode=True) as file:
        file.write(text)


def save_by_safer(path: Path, text: str) -> None:
    with import_module("safer").open(path, "w") as file:
        file.write(text)


PACKAGES: dict[str, Save] = {
    "atomicwrites": save_by_atomicwrites,
    "boltons": save_by_boltons,
    "safer": save_by_safer,
}


def setup(directory: Path) -> None:
    (directory / "settings").write_text(OLD)


def questions_of(save: Save) -> dict[str, Callable[..., None]]:
    """What is asked of each directory that a crash leaves."""

    def whole(directory: Path) -> None:
        found = (directory / "settings").read_text()
        assert found in (OLD, NEW), f"settings holds {found!r}"

    def kept(directory: Path, told: list[Any]) -> None:
        found = (directory / "settings").read_text()
        assert not told or found == NEW, f"the call has returned, and settings holds {found!r}"

    def again(directory: Path) -> None:
        save(directory / "settings", NEWEST)
        assert (directory / "settings").read_text() == NEWEST

    return {"whole": whole, "kept": kept, "again": again}


def reports_of(package: str) -> dict[str, Report]:
    """What comes of each question for a package.

    Raises:
        ImportError: It is not installed.
    """
    save = PACKAGES[package]
    import_module(package)

    def replace(directory: Path, told: Callable[[Any], None]) -> None:
        save(directory / "settings", NEW)
        told("saved")

    return {name: explore_files(replace, check, setup=setup) for name, check in questions_of(save).items()}


def main(*arguments: str) -> None:
    names = [name for name in arguments if name != "--report"] or list(PACKAGES)
    for name in names:
        try:
            reports = reports_of(name)
        except ImportError:
            print(f"{name} is missing: pip install {name}")
            continue
        answers = [
            f"{question}: {'yes' if report.verdict == 'passed' else 'no'}" for question, report in reports.items()
        ]
        print(f"{name} {metadata.version(name)}  {'  '.join(answers)}")
        if "--report" in arguments:
            print(*reports.values(), sep="\n\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
