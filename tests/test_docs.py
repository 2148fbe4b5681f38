"""What the pages say is true: their code runs, they name every module, their links lead somewhere."""

import ast
import builtins
import doctest
import itertools
import keyword
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import walkthrough
from places import ROOT

from persist_effects import codec, event, requests

ERROR_PAGES = ROOT / "interpreters" / "error_pages"  # which is docs/errors, too: a glob follows no symbolic link
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("**/*.md")),
    *sorted(ERROR_PAGES.glob("*.md")),
]
ARCHITECTURE = ROOT / "docs" / "concepts" / "architecture.md"

_BLOCK = re.compile(r"^```(\w+|{[\w-]+})[^\n]*\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")


class Block(NamedTuple):
    """A fenced piece of a page. ``line`` is that of its first line of code, from 1."""

    page: Path
    language: str
    line: int
    code: str


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text("utf-8")
    for found in _BLOCK.finditer(text):
        yield Block(page, found[1], text.count("\n", 0, found.start(2)) + 1, found[2])


def run_python(block: Block, namespace: dict[str, Any]) -> None:
    # Compiled with the page's name and line numbers, so that a traceback leads into the page.
    code = compile("\n" * (block.line - 1) + block.code, str(block.page), "exec")
    exec(code, namespace)


def run_pycon(block: Block, namespace: dict[str, Any]) -> None:
    session = doctest.DocTestParser().get_doctest(
        block.code, namespace, block.page.name, str(block.page), block.line - 1
    )
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    reports: list[str] = []
    runner.run(session, out=reports.append, clear_globs=False)
    assert not reports, "\n".join(reports)
    namespace.update(session.globs)


RUNNERS: dict[str, Callable[[Block, dict[str, Any]], None]] = {"python": run_python, "pycon": run_pycon}


def run_page(page: Path) -> None:
    """Run a page's blocks in order, in one namespace. An error is raised with the page and the line as its message."""
    # A module of its own, so that classes which the page defines are from somewhere.
    module = ModuleType(f"page_{page.stem.lower()}")
    for block in blocks(page):
        if block.language not in RUNNERS:
            continue
        try:
            RUNNERS[block.language](block, module.__dict__)
        except Exception as error:
            raise AssertionError(f"{page}:{_line_of(error, block)}: {type(error).__name__}: {error}") from error


def _line_of(error: Exception, block: Block) -> int:
    if isinstance(error, SyntaxError) and error.lineno is not None:
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return max((frame.lineno or 0 for frame in frames if frame.filename == str(block.page)), default=block.line)


# The blocks of the tutorial are files and commands, which tests/tutorial writes and runs as its reader does.
@pytest.mark.parametrize("page", [page for page in PAGES if page not in walkthrough.PAGES], ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page: Path) -> None:
    run_page(page)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("```python\na = 1\n```\ntext\n```python\nassert a == 1\nassert a == 2\n```\n", 7),
        ("text\n```python\ndef f(:\n```\n", 3),
        ("```python\na = 1\n```\n```pycon\n>>> a\n1\n>>> a + 1\n3\n```\n", 7),
        ("```pycon\n>>> 1 / 0\n```\n", 2),
    ],
    ids=["a false assertion", "no Python", "another answer", "an error"],
)
def test_code_that_is_wrong_is_found_with_its_page_and_line(tmp_path: Path, code: str, line: int) -> None:
    page = tmp_path / "page.md"
    page.write_text(code)
    with pytest.raises(AssertionError) as found:
        run_page(page)
    assert str(page) in str(found.value)
    assert re.search(rf":{line}:|line {line},", str(found.value))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_fenced_block_says_its_language_and_is_found(page: Path) -> None:
    fences = [line for line in page.read_text("utf-8").splitlines() if line.lstrip().startswith("```")]
    assert len(fences) == 2 * len(list(blocks(page)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_to_files(page: Path) -> None:
    prose = re.sub(r"`[^`\n]*`", "code", _BLOCK.sub("", page.read_text("utf-8")))
    for target in _LINK.findall(prose):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


MODULES = [path for top in ("persist_effects", "interpreters") for path in sorted((ROOT / top).rglob("*.py"))]


def test_the_architecture_names_every_room_and_no_other() -> None:
    text = ARCHITECTURE.read_text("utf-8")
    table = text[text.index("## Rooms") : text.index("The walls, each a row")]
    top = ROOT / "interpreters"
    rooms = {path.name + "/" * path.is_dir() for path in top.iterdir() if path.suffix == ".py" or path.is_dir()}
    named = {
        name for row in re.findall(r"^\|[^|]*\|([^|]*)\|", table, re.MULTILINE) for name in re.findall("`(.+?)`", row)
    }
    assert named == rooms - {"__init__.py", "__pycache__/"} | {"persist_effects/"}


def test_the_rooms_the_walls_and_a_requests_way_stand_on_one_screen() -> None:
    assert ARCHITECTURE.read_text("utf-8").splitlines().index("## Where a change goes") <= 60


def test_each_place_that_the_architecture_names_is_there() -> None:
    text = _BLOCK.sub("", ARCHITECTURE.read_text("utf-8"))
    places = set(re.findall(r"`((?:\w+/)+(?:\w+\.\w+)?|\w+\.(?:py|md))`", text)) - {
        "disk/",
        "snapshot/",
        "follow/",
        "once/",
    }
    there = {
        path.relative_to(ROOT).as_posix() + "/" * path.is_dir()
        for top in ("persist_effects", "interpreters", "tests", "examples", "benchmarks", "docs")
        for path in (ROOT / top, *(ROOT / top).rglob("*"))
    }
    assert not {place for place in places if not any(f"/{each}".endswith(f"/{place}") for each in there)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_first_sentence_of_a_module_is_its_promise(path: Path) -> None:
    first, _, _ = (ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").partition("\n\n")
    assert re.search(r"^\S.{15,}[.:?]", first, re.DOTALL), "write what the module is for, in a sentence"


def test_the_architecture_gives_every_dependency_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    names = {re.split(r"[^\w-]", line)[0] for line in wanted} - {project["name"]}
    rows = re.findall(r"^\| `([\w-]+)` \| [^|]+ \| \S", ARCHITECTURE.read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(names)


def test_the_architecture_gives_the_limits_of_the_code() -> None:
    text = ARCHITECTURE.read_text("utf-8")
    for limit in (
        f"{codec.PAYLOAD_LIMIT_BYTES // 1024**2} MiB",
        f"{event.NAME_LIMIT_BYTES} bytes",
        f"{codec.DEPTH_LIMIT} levels",
        f"{requests.PAGE_SIZE} events or names",
        f"{requests.PAGE_SIZE_MAX} at most",
    ):
        assert limit in text


def test_the_readme_lists_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in project["optional-dependencies"]:
        assert f"| `{extra}` |" in (ROOT / "README.md").read_text("utf-8")


_TICKED = re.compile(r"(?<![`\w])`([A-Za-z_][\w.]*)(?:\(\))?`(?!`)")
_CODE = [
    path
    for top in ("persist_effects", "interpreters", "tests", "examples", "benchmarks")
    for path in (ROOT / top).rglob("*.py")
]


def names_of_code() -> set[str]:
    """Every name that the code has: of modules and extras, classes, functions, arguments, attributes, globals."""
    names = set(dir(builtins)) | set(sys.stdlib_module_names) | set(keyword.kwlist)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    names |= set(extras) | {re.split(r"[^\w-]", line)[0] for line in itertools.chain(*extras.values())}
    for path in _CODE:
        names |= set(path.relative_to(ROOT).with_suffix("").parts)
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for field in ("id", "attr", "arg", "name", "module"):
                found = getattr(node, field, None)
                if isinstance(found, str):
                    names |= set(found.split("."))
    return names


def texts_that_name_code() -> Iterator[tuple[str, str]]:
    """Where, and what is written there: each docstring of ours, and the architecture without its blocks of code."""
    yield str(ARCHITECTURE), _BLOCK.sub("", ARCHITECTURE.read_text("utf-8"))
    for path in _CODE:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path}:{getattr(node, 'lineno', 1)}", ast.get_docstring(node) or ""


def test_every_name_in_backticks_is_a_name_that_the_code_has() -> None:
    known = names_of_code()
    assert "Sync" + "Dir" not in known, "a name that nothing has is told from those of the code"
    known |= set(
        itertools.chain(*(page.relative_to(ROOT).parts for page in (*PAGES, *(ROOT / "interpreters").rglob("*.md"))))
    )
    missing = [
        f"{where}: `{name}`"
        for where, text in texts_that_name_code()
        for name in _TICKED.findall(text)
        if name not in known and not known.issuperset(name.removesuffix(".py").split("."))
    ]
    assert not missing, "\n".join(missing)


def test_every_page_that_a_docstring_names_is_there() -> None:
    there = {page.name for page in (*PAGES, *(ROOT / "interpreters").rglob("*.md"))}
    named = [(where, page) for where, text in texts_that_name_code() for page in re.findall(r"[A-Z]+\.md", text)]
    assert named
    assert not [f"{where}: {page}" for where, page in named if page not in there]


# What users call. What a function takes, returns and raises stands in sections of its docstring.
CALLED_BY_USERS = (
    *(f"persist_effects/{name}.py" for name in (
        "blob", "clock", "compaction", "decision", "handler_table", "kv", "log", "machine", "projection", "schema",
        "snapshot", "subscription", "testing", "transaction", "view", "trace/diff", "trace/masking",
        "trace/record", "trace/replay",
    )),
    *(f"interpreters/{name}.py" for name in (
        "blobs/cid", "blobs/directory", "blobs/files", "blobs/homes", "blobs/ipfs", "blobs/later", "blobs/memory",
        "blobs/objects", "blobs/proofs", "blobs/reading", "blobs/sweeping", "blobs/upkeep", "blobs/urls", "opening",
        "traces", "conformance/suite", "disk/directory_disk", "explore/crashes/disk_programs",
        "explore/effects/explore",
        "explore/schedule/explore", "explore/schedule/simulate", "runtime/interpreter", "runtime/store",
        "clocks", "store_testing", "stores/names", "stores/ranges", "stores/waiting",
    )),
)  # fmt: skip
_SECTION = re.compile(r"^(Args|Returns|Raises):\n((?:    .*\n?|\n)+)", re.MULTILINE)
_ITEM = re.compile(r"^    \*{0,2}(\w+):", re.MULTILINE)


@pytest.mark.parametrize("place", CALLED_BY_USERS)
def test_a_function_that_users_call_says_what_it_takes_and_returns(place: str) -> None:
    lacking = [
        f"{name}: {what}"
        for name, function in functions_of(ast.parse((ROOT / place).read_text()))
        for what in lacks(function)
    ]
    assert lacking == []


def functions_of(module: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The public functions of a module and the public methods of its public classes, but for overloads."""
    for owner in (module, *(node for node in module.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")):
        for node in owner.body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name[0] == "_":
                continue
            if {"overload", "property", "_fixture"}.isdisjoint(map(ast.unparse, node.decorator_list)):
                yield node.name if owner is module else f"{owner.name}.{node.name}", node


def lacks(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """The arguments that its docstring does not name, and ``Returns:`` where that is missing."""
    sections = dict(
        re.findall(r"^(Args|Returns|Raises):\n((?:    .*\n?|\n)+)", ast.get_docstring(function) or "", re.MULTILINE)
    )
    arguments = function.args
    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    names = [one.arg for one in given if one is not None and one.arg not in {"self", "cls"}]
    missing = sorted(set(names) - set(_ITEM.findall(sections.get("Args", ""))))
    gives = "" if function.returns is None else ast.unparse(function.returns)
    return missing + (["Returns"] if gives not in {"None", "Effect[None]", ""} and "Returns" not in sections else [])
