"""What type checkers know of programs: the files in `typed` are accepted, but for the lines that say what is wrong.

Such a line has a comment for each checker, with the complaint that is expected. A checker complains of a comment that
it does not need, too: so a line that should be refused and is not is found, as one that should not be and is.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

TYPED = ROOT / "tests" / "typed"

PLANTED = """\
# pyright: strict, reportUnnecessaryTypeIgnoreComment=error
accepted: int = 7
refused: int = "7"  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
refused_unexpectedly: int = "7"
accepted_unexpectedly: int = 7  # type: ignore[assignment] # pyright: ignore[reportAssignmentType]
refused_for_something_else: int = "7"  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
"""


def lines_that_mypy_refuses(folder: Path) -> set[tuple[str, int]]:
    asked = [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--show-absolute-path", str(folder)]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=ROOT)
    assert said.returncode in {0, 1}, said.stdout + said.stderr
    found = re.findall(r"^(.+?):(\d+): error:", said.stdout, re.MULTILINE)
    return {(Path(place).name, int(line)) for place, line in found}


def lines_that_pyright_refuses(folder: Path) -> set[tuple[str, int]]:
    settings = {"typeCheckingMode": "strict", "enableTypeIgnoreComments": False, "extraPaths": [str(ROOT)]}
    settings["reportUnnecessaryTypeIgnoreComment"] = "error"
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    asked = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, "-p", str(folder)]
    said = subprocess.run(asked, capture_output=True, text=True, check=False, cwd=ROOT)
    assert said.returncode in {0, 1}, said.stdout + said.stderr
    report = json.loads(said.stdout[said.stdout.index("{") :])
    assert report["summary"]["filesAnalyzed"] == len(list(folder.glob("*.py")))
    return {(Path(told["file"]).name, told["range"]["start"]["line"] + 1) for told in report["generalDiagnostics"]}


@pytest.mark.parametrize("refused_by", [lines_that_mypy_refuses, lines_that_pyright_refuses])
def test_a_checker_refuses_what_is_marked_as_wrong_for_what_is_marked_and_nothing_else(tmp_path, refused_by):
    shutil.copytree(TYPED, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "planted.py").write_text(PLANTED)
    assert refused_by(tmp_path) == {("planted.py", line) for line in (4, 5, 6)}


def test_every_part_of_the_door_has_a_line_that_must_be_refused():
    files = {path.name: path.read_text() for path in TYPED.glob("*.py")}
    assert {"programs.py", "keys.py", "transactions.py", "schemas.py", "handlers.py", "forgotten.py"} == files.keys()
    assert all("# pyright: ignore[" in text for text in files.values())
