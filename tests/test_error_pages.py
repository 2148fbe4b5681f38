"""Each error has a page, every message leads to it, and no page is without its error or lacks a part."""

import ast
import importlib
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from commanding import invoke
from places import ROOT
from test_walls import EXPORTS

from interpreters import error_pages, open_store
from interpreters.cli.commands import BLOB_COMMANDS, COMMANDS, FLOW_COMMANDS, FOLLOWER_COMMANDS
from interpreters.error_pages import page_names, page_text, pages_of, plain, see_pages, summary_of
from persist_effects import CallerError, StoreClosed, Truncated, kv

FOLDER = ROOT / "interpreters" / "error_pages"

# Values which say how something ended, and are raised by nobody.
VALUES = {"Conflict"}

# Errors which are caught in the room that raises them, and where: what users see of them is another error, or a report.
CAUGHT_INSIDE = {
    "BucketRefused": "interpreters/blobs/",
    "Denied": "interpreters/nats/",
    "Ended": "interpreters/explore/",
    "Hangs": "interpreters/explore/",
    "NotKept": "interpreters/wrappers/encryption/",
    "Refused": "interpreters/stores/nats/",
    "SegmentGone": "interpreters/stores/file/",
    "Stop": "interpreters/explore/crashes/",
    "Unanswered": "interpreters/nats/",
    "Undone": "interpreters/stores/sqlite/",
    "Unproved": "interpreters/blobs/",
    "WrongAnswer": "interpreters/explore/crashes/",
}

SECTIONS = ["How it comes about", "What was written", "What to do", "An example"]


def error_classes() -> dict[str, str]:
    """The public exceptions and warnings of the house, and the file of each."""
    found = {}
    for path in (*(ROOT / "persist_effects").rglob("*.py"), *(ROOT / "interpreters").rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        classes = [node.name for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.ClassDef)]
        if path.name == "__main__.py" or not any(name[0] != "_" for name in classes):
            continue
        module = importlib.import_module(place.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        for name in classes:
            if name[0] != "_" and issubclass(getattr(module, name), BaseException):
                found[name] = place
    return found


CLASSES = error_classes()


def lacking(classes: dict[str, str], pages: dict[str, str]) -> Iterator[str]:
    """What is missing: pages of classes, classes of pages, parts of pages."""
    wanted = (classes.keys() - CAUGHT_INSIDE.keys()) | VALUES
    yield from (f"{name} has no page: write {FOLDER.name}/{name}.md" for name in sorted(wanted - pages.keys()))
    yield from (f"{name}.md is a page of nothing" for name in sorted(pages.keys() - wanted))
    for name, text in pages.items():
        lines = text.splitlines()
        if lines[0] != f"# {name}":
            yield f"{name}.md does not begin with its name"
        if [line.removeprefix("## ") for line in lines if line.startswith("## ")] != SECTIONS:
            yield f"{name}.md has not the parts {', '.join(SECTIONS)}"
        if not re.match(r"[A-Z`].*\.$", lines[2]):
            yield f"{name}.md does not say in its first line what the error means"
        if any(not part.strip() for part in re.split(r"^#.*\n", text, flags=re.MULTILINE)[1:]):
            yield f"{name}.md has an empty part"
        raised = re.search(r"^Traceback .*\n[\w.]*\b(\w+)(:|\.\.\.|$)", text, re.MULTILINE)
        if name in VALUES:
            if not re.search(rf"^>>> .*\n{name}\(", text, re.MULTILINE):
                yield f"{name}.md does not show one"
        elif raised is None or not is_raised(name, raised[1]):
            yield f"{name}.md does not raise one"


def is_raised(name: str, raised: str) -> bool:
    """Whether what an example raises is what its page is about: for a base that nobody raises, one that is below."""
    kinds = {
        each: getattr(importlib.import_module(module_of(each)), each) for each in (name, raised) if each in CLASSES
    }
    return len(kinds) == len({name, raised}) and issubclass(kinds[raised], kinds[name])


def module_of(name: str) -> str:
    return CLASSES[name].removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def all_pages() -> dict[str, str]:
    return {name: page_text(name) for name in page_names()}


def test_each_error_has_a_page_with_all_its_parts() -> None:
    assert list(lacking(CLASSES, all_pages())) == []


PAGE = page_text("StoreClosed")


@pytest.mark.parametrize(
    ("classes", "pages", "told"),
    [
        ({"Odd": "persist_effects/errors.py"}, {}, "Odd has no page"),
        ({}, {"StoreClosed": None}, "StoreClosed has no page"),
        ({}, {"Conflict": None}, "Conflict has no page"),
        ({}, {"Odd": PAGE}, "Odd.md is a page of nothing"),
        ({}, {"StoreClosed": PAGE.replace("# StoreClosed", "# StoreOpen", 1)}, "does not begin with its name"),
        ({}, {"StoreClosed": PAGE.replace("## What was written", "## Written")}, "has not the parts"),
        ({}, {"StoreClosed": PAGE.replace("## What to do", "## An example")}, "has not the parts"),
        ({}, {"StoreClosed": PAGE.replace("The store was", "the store was", 1)}, "does not say in its first line"),
        ({}, {"StoreClosed": re.sub(r"(?s)(## What was written\n).*?\n##", r"\1\n##", PAGE)}, "empty part"),
        ({}, {"StoreClosed": PAGE.replace("errors.StoreClosed:", "errors.StoreLocked:")}, "does not raise one"),
        ({}, {"Conflict": page_text("Conflict").replace("\nConflict(", "\nOther(")}, "does not show one"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_found(classes, pages, told) -> None:
    given = {name: text for name, text in {**all_pages(), **pages}.items() if text is not None}
    assert any(told in each for each in lacking({**CLASSES, **classes}, given))


def test_what_is_caught_inside_is_exported_nowhere_and_stands_in_its_room() -> None:
    exported = {name for names in EXPORTS.values() for name in names.split()}
    assert not CAUGHT_INSIDE.keys() & exported
    assert all(CLASSES[name].startswith(room) for name, room in CAUGHT_INSIDE.items())


def test_the_index_names_every_page_with_its_first_sentence() -> None:
    index = (FOLDER / "index.md").read_text("utf-8")
    rows = re.findall(r"^\| \[(\w+)\]\((\w+)\.md\) \| (.*) \|$", index, re.MULTILINE)
    assert rows == [(name, name, summary_of(name)) for name in page_names()]


def test_the_pages_are_where_the_documentation_is() -> None:
    assert (ROOT / "docs" / "errors").resolve() == FOLDER
    assert os.readlink(ROOT / "docs" / "errors") == "../interpreters/error_pages"


def test_every_command_that_a_page_names_is_there() -> None:
    groups = {"blobs": BLOB_COMMANDS, "follower": FOLLOWER_COMMANDS, "flows": FLOW_COMMANDS}
    named = {
        (name, found)
        for name, text in all_pages().items()
        for found in re.findall(r"persist-effects (\w[^`\n]*)", text)
    }
    assert named
    for name, command in named:
        first, *rest = command.split()
        known = rest[0] in groups[first] if first in groups else first in COMMANDS
        assert known or first.startswith("--"), f"{name}.md: persist-effects {command}"


# What is printed of an error leads to its page


def test_an_error_leads_to_its_page_and_one_of_a_users_own_class_to_that_of_its_base() -> None:
    class TooBusy(CallerError):
        pass

    assert pages_of(Truncated("a", 3)) == ["Truncated"]
    assert pages_of(TooBusy("busy")) == ["CallerError"]
    assert pages_of(ValueError("other")) == []
    assert see_pages(ValueError("other")) == ""


@pytest.mark.parametrize("name", sorted(CLASSES.keys() - CAUGHT_INSIDE.keys()))
def test_every_class_leads_to_the_page_of_its_name(name) -> None:
    kind = getattr(importlib.import_module(module_of(name)), name)
    assert pages_of(kind.__new__(kind)) == [name]


def test_what_caused_an_error_and_what_is_grouped_in_it_leads_to_its_page_too() -> None:
    wrapped = ValueError("mine")
    wrapped.__cause__ = Truncated("a", 3)
    wrapped.__cause__.__context__ = wrapped  # a circle
    assert pages_of(wrapped) == ["Truncated"]
    assert pages_of(ExceptionGroup("two", [StoreClosed("closed"), wrapped])) == ["StoreClosed", "Truncated"]
    hidden = ValueError("mine")
    hidden.__context__, hidden.__suppress_context__ = Truncated("a", 3), True
    assert pages_of(hidden) == []


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT)


FAILING = "from interpreters import open_store\nfrom persist_effects import kv\nopen_store('memory:').run(kv.get(''))"


def test_an_error_that_nobody_catches_ends_with_its_page() -> None:
    lines = run_python("-c", FAILING).stderr.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2].startswith("persist_effects.errors.InvalidRequest: key is empty")
    assert lines[-1] == "see: persist-effects explain InvalidRequest"


def test_other_errors_end_as_ever_and_what_showed_them_before_still_does() -> None:
    code = "import sys\nsys.excepthook = lambda *_: print('shown')\nfrom interpreters import Store\n"
    done = run_python("-c", code + "1 / 0")
    assert (done.stdout, done.stderr) == ("shown\n", "")
    done = run_python("-c", code + FAILING)
    assert (done.stdout, done.stderr) == ("shown\n", "see: persist-effects explain InvalidRequest\n")


def test_a_page_is_named_once_however_often_the_package_is_imported() -> None:
    again = "import importlib, interpreters.runtime.store as one\nimportlib.reload(one)\n"
    assert run_python("-c", again + FAILING).stderr.count("see: ") == 1


def test_the_text_of_an_error_and_its_notes_are_as_they_were() -> None:
    with open_store("memory:") as store:
        pass
    with pytest.raises(StoreClosed) as caught:
        store.run(kv.get("color"))
    assert str(caught.value) == "this store was closed: open it again to run programs"
    assert not hasattr(caught.value, "__notes__")


def test_a_command_that_fails_names_the_page_below_its_message(tmp_path) -> None:
    done = invoke("get", f"file:{tmp_path / 'none'}", "color")
    assert done.exit_code != 0
    assert done.stderr.splitlines()[-1] == "see: persist-effects explain InvalidRequest"
    done = invoke("get", f"file:{tmp_path / 'none'}", "color", "--json")
    assert json.loads(done.stdout)["error"] == "InvalidRequest"


# The command


def test_explain_prints_a_page_as_it_is_written_where_no_terminal_is() -> None:
    done = invoke("explain", "Truncated")
    assert (done.exit_code, done.stdout, done.stderr) == (0, page_text("Truncated"), "")


@pytest.mark.parametrize("name", ["truncated", "persist_effects.errors.Truncated", "persist_effects.errors.Truncated:"])
def test_explain_takes_a_name_as_a_traceback_has_it_and_in_any_case(name) -> None:
    assert invoke("explain", name).stdout == page_text("Truncated")


@pytest.mark.parametrize("arguments", [[], ["--list"]])
def test_explain_without_a_name_lists_every_page(arguments) -> None:
    lines = invoke("explain", *arguments).stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(page_names())
    assert "Truncated         Events that were asked for, or that a fold needs, were dropped by truncation." in lines


def test_explain_refuses_an_unknown_name_with_those_that_are_near() -> None:
    done = invoke("explain", "Trunkated")
    assert (done.exit_code, done.stdout) == (2, "")
    assert done.stderr.startswith("persist-effects: there is no page 'Trunkated': there is Truncated, ")
    assert invoke("explain", "xyzzy").stderr.startswith("persist-effects: there is no page 'xyzzy': `persist-effects")
    assert invoke("explain", "--list", "Truncated").exit_code == 2


def test_explain_gives_json_to_scripts() -> None:
    (page,) = map(json.loads, invoke("explain", "truncated", "--json").stdout.splitlines())
    assert (page["name"], page["summary"], page["page"]) == (
        "Truncated",
        summary_of("Truncated"),
        page_text("Truncated"),
    )
    listed = [json.loads(line) for line in invoke("explain", "--json").stdout.splitlines()]
    assert [each["name"] for each in listed] == list(page_names())


def at_a_terminal(*arguments: str) -> str:
    """What a command prints where a terminal is."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    with open(slave, "wb") as there:
        child = subprocess.Popen(
            [sys.executable, "-m", "interpreters.cli", *arguments], stdout=there, cwd=ROOT, env=environment
        )
    printed = b""
    with open(master, "rb", buffering=0) as here:
        try:
            while part := here.read(4096):
                printed += part
        except OSError:  # Linux tells the end of a terminal so
            pass
    assert child.wait() == 0
    return printed.decode().replace("\r\n", "\n")


def test_explain_lays_a_page_out_at_a_terminal_unless_asked_for_it_plain() -> None:
    laid_out = at_a_terminal("explain", "StoreClosed")
    assert "\x1b[" in laid_out
    assert "# StoreClosed" not in laid_out
    assert at_a_terminal("explain", "StoreClosed", "--plain") == page_text("StoreClosed")


WITHOUT_EXTRAS = "import runpy, sys\nfor name in ('rich', 'typer'): sys.modules[name] = None\n"


@pytest.mark.parametrize("module", ["interpreters.cli", "interpreters.error_pages"])
def test_pages_are_read_without_the_extra(module) -> None:
    start = ["explain", "Truncated"] if module == "interpreters.cli" else ["Truncated"]
    code = f"{WITHOUT_EXTRAS}sys.argv[1:] = {start}\nrunpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
    done = run_python("-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, page_text("Truncated"), "")


def test_the_plain_command_lists_and_refuses_as_the_other_does(capsys) -> None:
    assert plain.main([]) == plain.main(["--list"]) == 0
    assert set(capsys.readouterr().out.splitlines()) == set(error_pages.lines_of_pages())
    assert plain.main(["Trunkated"]) == plain.main(["--odd"]) == plain.main(["Truncated", "SqlFailed"]) == 2
    assert plain.main(["--list", "Truncated"]) == 2
    assert "there is Truncated" in capsys.readouterr().err
