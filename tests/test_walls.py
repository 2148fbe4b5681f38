"""The walls between the folders, and the names that stand in them on purpose."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from places import ROOT

import interpreters
import interpreters.conformance
import interpreters.explore
import interpreters.stores.served
import persist_effects

CORE = sorted((ROOT / "persist_effects").rglob("*.py"))
INTERPRETERS = sorted((ROOT / "interpreters").rglob("*.py"))

# What the core may import beside itself: the pure parts of the standard library, and msgspec.
PURE = {
    "base64",
    "builtins",
    "collections",
    "contextvars",
    "copy",
    "difflib",
    "functools",
    "hashlib",
    "itertools",
    "json",
    "math",
    "msgspec",
    "struct",
    "types",
    "typing",
    "unicodedata",
    "weakref",
}

# Packages behind an extra, and the only modules and folders of `interpreters` that may import them.
OPTIONAL = {
    "anyio": ("runtime/tasks.py",),
    "hypothesis": ("conformance/suite.py", "conformance/model.py", "conformance/strategies.py", "conformance/facts/"),
    "pytest": (
        "conformance/suite.py",
        "conformance/model.py",
        "conformance/strategies.py",
        "conformance/facts/",
        "pytest_plugin.py",
        "pytest_never_run.py",
    ),
    "multiformats": ("blobs/cid.py",),
    "rich": ("cli.py", "explore/report.py"),
    "typer": ("cli.py",),
}


def imported_by(path):
    """The modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            yield node.module


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_the_core_imports_only_what_is_pure(path):
    roots = {module.split(".")[0] for module in imported_by(path)}
    assert roots <= PURE | {"persist_effects"}


@pytest.mark.parametrize("path", INTERPRETERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_optional_packages_are_imported_only_in_their_own_rooms(path):
    place = path.relative_to(ROOT / "interpreters").as_posix()
    for module in imported_by(path):
        rooms = OPTIONAL.get(module.split(".")[0], (place,))
        assert any(place.startswith(room) if room.endswith("/") else place == room for room in rooms), (
            f"{place} imports {module}"
        )


# What changes files, or which name means which; and the calls of `os` that open one.
CHANGES_FILES = {
    "chmod", "copy_file_range", "fchmod", "fdatasync", "fdopen", "fsync", "ftruncate", "link", "makedirs", "mkdir",
    "mkfifo", "open", "posix_fallocate", "pwrite", "remove", "removedirs", "rename", "renames", "replace", "rmdir",
    "symlink", "sync", "truncate", "unlink",
}  # fmt: skip
CHANGES_FILES_BY_PATH = {
    "hardlink_to", "mkdir", "rmdir", "symlink_to", "touch", "unlink", "write_bytes", "write_text",
}  # fmt: skip

# The files that nobody keeps a store in.
OTHER_FILES = {
    "cli.py": {"open", "os.open"},  # what `import` reads, and where a closed pipe's output goes
    "explore/report.py": {"write_text"},  # a page to look at
    "stores/served/transport.py": {"os.open"},  # the null device, in a child in the place of its parent's pipes
}


def changes_of_files(path):
    """The calls in a file that may change files, or open them."""
    for node in ast.walk(ast.parse(path.read_text())):
        # One that is handed on is called elsewhere.
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os" and node.attr in CHANGES_FILES:
            yield f"os.{node.attr}"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        module, _, name = called.rpartition(".")
        if called == "open" or module in {"shutil", "tempfile", "fcntl"}:
            yield called
        elif name in CHANGES_FILES_BY_PATH or (name == "open" and module.startswith("Path(")):
            yield name


@pytest.mark.parametrize("path", INTERPRETERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_real_disk_makes_system_calls_that_change_files(path):
    place = path.relative_to(ROOT / "interpreters").as_posix()
    if place not in {"disk/real.py", "disk/files.py"}:
        assert set(changes_of_files(path)) <= OTHER_FILES.get(place, set())


def test_the_system_calls_that_change_files_are_found():
    assert {"os.mkdir", "os.open", "os.rename", "os.unlink", "os.fsync", "shutil.rmtree", "fcntl.fcntl"} <= set(
        changes_of_files(ROOT / "interpreters" / "disk/files.py")
    )
    assert set(changes_of_files(ROOT / "interpreters" / "cli.py")) == OTHER_FILES["cli.py"]


@pytest.mark.parametrize("path", INTERPRETERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_store_waits_where_an_interrupt_leaves_a_lock_held(path):
    waits = {"threading.Event", "threading.Condition", "threading.Semaphore", "threading.Barrier"}
    found = {ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert path.parent.name == "facts" or not found & waits, "take an `interpreters.threads.gates.Gate`"


# Each store's files. None imports what is another's.
STORES = {
    "memory": ("stores/memory.py",),
    "file": ("stores/file/",),
    "served": ("stores/served/",),
    "blobs": ("blobs/",),
}


def store_of(place):
    """The store to which a file or folder of `interpreters` belongs, or None."""
    for store, rooms in STORES.items():
        if any(place.startswith(room) if room.endswith("/") else place == room for room in rooms):
            return store
    return None


@pytest.mark.parametrize("path", INTERPRETERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_store_imports_another_store(path):
    place = path.relative_to(ROOT / "interpreters").as_posix()
    own = store_of(place)
    if own is None:
        return
    for module in imported_by(path):
        if module.startswith("interpreters."):
            rest = module.removeprefix("interpreters.").replace(".", "/")
            # A folder or a file, whichever it is.
            others = {store_of(f"{rest}/"), store_of(f"{rest}.py")} - {None, own}
            assert not others, f"{place} imports {module}, which is of the store {others}"


def test_every_file_of_a_store_is_known_to_the_wall_between_stores():
    places = [path.relative_to(ROOT / "interpreters").as_posix() for path in INTERPRETERS]
    assert {store_of(place) for place in places} >= set(STORES)


# What asks the system for anything. Of the file store's modules these two may, for other things than the engine's
# files: one is the engine's host, the other the operators' tools, which make and name whole directories.
SYSTEM = {"fcntl", "io", "mmap", "os", "pathlib", "shutil", "signal", "socket", "subprocess", "tempfile", "time"}
HOSTS = {"stores/file/store.py", "stores/file/upkeep/operations.py"}


@pytest.mark.parametrize("path", INTERPRETERS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_file_engine_asks_the_system_for_nothing_but_by_requests_to_its_disk(path):
    place = path.relative_to(ROOT / "interpreters").as_posix()
    if place.startswith("stores/file/") and place not in HOSTS:
        assert not {module.split(".")[0] for module in imported_by(path)} & SYSTEM


def test_what_the_architecture_calls_the_only_room_of_a_package_is_the_only_one():
    text = (ROOT / "docs" / "architecture.md").read_text()
    found = re.findall(r"^\| `interpreters/([\w/.]+)` \|.*the only room of (\w+)", text, re.MULTILINE)
    assert found
    for place, package in found:
        assert OPTIONAL[package] == (place,), f"{package}: {OPTIONAL[package]}"


# What looks at a clock. Programs beside the tests may, which run for as long as they are told to.
CLOCKS = {"monotonic", "perf_counter", "perf_counter_ns", "process_time", "monotonic_ns"}
CLOCKS |= {f"time.{name}" for name in CLOCKS}
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_test_measures_time_or_sleeps(path):
    called = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
    assert not {name for name in called if name in CLOCKS or name == "time.sleep" or name.startswith("time.time")}


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_no_name_of_a_case_is_what_repr_or_str_says(path):
    # Which differs by process where a set is in it, or an address; then the workers of xdist collect other tests.
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.keyword) and node.arg == "ids":
            told = ast.unparse(node.value)
            assert told not in {"repr", "str"}, f"{path.name}:{node.value.lineno}: write ids=steady"
            assert "repr(" not in told, f"{path.name}:{node.value.lineno}: write ids=steady"


def test_no_example_that_hypothesis_draws_has_to_be_ready_in_time():
    assert hypothesis.settings.default.deadline is None


def test_there_is_one_yield_of_requests_in_the_core():
    yields = [
        (path.name, node.lineno)
        for path in CORE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Yield) and path.name != "codec.py"  # whose generators are no programs
    ]
    assert [name for name, _ in yields] == ["machine.py"]


def test_a_bare_install_runs_programs_without_any_optional_package():
    code = (
        "import sys\n"
        f"for name in {sorted(OPTIONAL)!r}: sys.modules[name] = None\n"
        "from interpreters import open_store\n"
        "from persist_effects import log, InvalidRequest\n"
        "store = open_store('memory:')\n"
        "assert store.run(log.append('s', 'made', 1)).seq == 1\n"
        "try: store.arun(log.last_seq('s')).send(None)\n"
        "except InvalidRequest as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "`arun` needs the package anyio: pip install anyio\n"


def test_the_conformance_suite_without_its_packages_names_the_extra():
    code = (
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "try: import interpreters.conformance\n"
        "except ModuleNotFoundError as error: print(error.name, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == (
        "hypothesis interpreters.conformance needs pytest and hypothesis, the extra `testing`: "
        "pip install pytest hypothesis\n"
    )


EXPORTS = {
    persist_effects: (
        "Abandoned AlreadyUsed Append Appended BlobNotFound BlobRef CallerError Conflict CorruptStore Diverged "
        "Done Draft Effect Entry Event ExpectRevision ExpectSeq Handlers Hub InternalError InvalidAnswer "
        "InvalidRequest KvDelete KvPut NeverRun NewerFormat NotAProgram NotARequest Page PersistError RecordedError "
        "Request Schema SchemaMismatch SnapshotMismatch Spinning State StoreClosed StoreLocked StoreUnavailable "
        "Suspended TooLarge TruncateThrough Truncated UncertainOutcome UnhandledEffect View all_of blob codec "
        "compaction errors event follow kv log machine perform program projection publish requests run schema snapshot "
        "start subscription testing trace transact transaction view"
    ),
    interpreters: "Store open_store",
    interpreters.conformance: "Capabilities NotConforming StoreConformance check_conformance facts_of needs",
    interpreters.explore: (
        "Cell Compact Failure Mark Pause Reopen Report Simulated Sleep explore explore_crashes explore_effects simulate"
    ),
    interpreters.stores.served: "PipeTransport RemoteStore SocketTransport Transport serve",
}


@pytest.mark.parametrize("module", EXPORTS, ids=lambda module: module.__name__)
def test_public_names_are_exported_on_purpose(module):
    assert sorted(module.__all__) == sorted(EXPORTS[module].split())
    assert all(hasattr(module, name) for name in module.__all__)


PUBLIC_FUNCTIONS = {
    "log": (
        "append append_expect append_many append_once last_seq read read_all read_back read_from read_range streams "
        "truncate_through"
    ),
    "kv": "delete delete_expect entry get get_or has keys put put_expect update",
    "blob": "get has put",
    "transaction": "transact",
    "projection": "project project_all project_all_resume project_resume",
    "snapshot": "checkpoint covered_seq kept read replay state_type_of write",
    "states": "kept_in record_of",
    "compaction": "compact maybe_compact should_compact",
    "subscription": "follow publish",
    "view": "attach peek refresh value",
    "machine": (
        "all_of check_fresh check_returned ended next_request outcome_of outcomes_of perform run settled start "
        "unwind unwind_all"
    ),
    "contexts": "here leaves_contexts_alone own_contexts parts_in runs_of",
    "programs": "is_fresh_program program refused watch",
    "answers": "check_answers checked_rows fits rows_of_a_store",
    "rows": "is_async_generator_row is_async_row is_program_row refuse_async",
    "slips": "instead_of_program instead_of_request said",
    "spinning": "counted give_up",
    "json_values": "decode_line from_json to_json",
    "sameness": "is_equal sameness",
    "trace.record": "record",
    "trace.replay": "check_trace fresh_program replay resume_at",
    "trace.diff": "as_text compare diff handlers_of",
    "trace.source": "source_of",
    "testing": "given perform_sequence",
    "codec": (
        "check_ops decode decode_answer decode_request encode encode_answer encode_new_entry encode_new_event "
        "encode_new_events encode_request fresh from_plain "
        "payload_name to_plain value_name"
    ),
}


@pytest.mark.parametrize("name", PUBLIC_FUNCTIONS)
def test_the_facets_have_the_functions_of_the_design(name):
    module = importlib.import_module(f"persist_effects.{name}")
    tree = ast.parse(Path(module.__file__).read_text())
    functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[0] != "_"}
    assert sorted(functions) == PUBLIC_FUNCTIONS[name].split()


@pytest.mark.parametrize("name", PUBLIC_FUNCTIONS)
def test_every_public_function_has_an_example_that_runs(name):
    # The examples themselves are run by pytest's doctest collection.
    module = importlib.import_module(f"persist_effects.{name}")
    tree = ast.parse(Path(module.__file__).read_text())
    without = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and node.name[0] != "_"
        and not any(ast.unparse(decorator) == "overload" for decorator in node.decorator_list)
        and ">>>" not in (ast.get_docstring(node) or "")
    ]
    assert set(without) <= {"perform", "encode_answer"}  # shown by the module's own example, and by its twin's
