"""The walls between the rooms, as a table. Each is shown to bite: what is planted through it is found."""

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from places import ROOT

import interpreters
import interpreters.conformance
import interpreters.disk
import interpreters.explore
import interpreters.explore.files
import interpreters.flow_testing
import interpreters.stores.served
import interpreters.wrappers
import interpreters.wrappers.encryption
import persist_effects

TOPS = ("persist_effects", "interpreters")


@cache
def tree_of(source: str) -> ast.Module:
    return ast.parse(source)


# Most of the house is looked at by many tests, and is the same for each.
@cache
def imports_of(place: str, source: str) -> tuple[str, ...]:
    """What a module imports, wherever in it: the names of modules, or of what is imported from them."""
    names: list[str] = []
    for node in ast.walk(tree_of(source)):
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{place}: imports are absolute"
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


class Sources:
    """The modules of the two packages by their places, such as ``interpreters/jsonl.py``, and what they import."""

    def __init__(self, sources: Mapping[str, str]) -> None:
        self.sources = dict(sources)
        self._place_of = {name_of(place): place for place in sources}

    def planted(self, place: str, text: str) -> "Sources":
        """The same, with lines more in one of them."""
        return Sources({**self.sources, place: f"{self.sources.get(place, '')}\n{text}\n"})

    def imports(self, place: str) -> tuple[str, ...]:
        """What a module imports."""
        return imports_of(place, self.sources[place])

    def imported(self, place: str) -> set[str]:
        """The places of what a module imports of ours."""
        found = set()
        for name in self.imports(place):
            module = name if name in self._place_of else name.rpartition(".")[0]
            if module in self._place_of:
                found.add(self._place_of[module])
        return found - {place}

    def in_rooms(self, *rooms: str) -> list[str]:
        return [place for place in self.sources if is_in(place, rooms)]


def name_of(place: str) -> str:
    """The name by which a module is imported."""
    return place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def is_in(place: str, rooms: tuple[str, ...]) -> bool:
    """Whether a place is one of some files, or lies in one of some folders, whose names end with a slash."""
    return any(place.startswith(room) if room.endswith("/") else place == room for room in rooms)


HOUSE = Sources(
    {
        path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
        for top in TOPS
        for path in sorted((ROOT / top).rglob("*.py"))
    }
)

# What the core may import beside itself: the pure parts of the standard library, and msgspec.
PURE = {
    "base64", "builtins", "collections", "contextvars", "copy", "difflib", "functools", "hashlib", "inspect",
    "itertools", "json", "math", "msgspec", "re", "struct", "types", "typing", "unicodedata", "weakref",
    "typing_extensions",  # by type checkers alone, each of which brings it
}  # fmt: skip

# Packages behind an extra, and the only rooms that may import them. Those without a room are for the examples.
OPTIONAL: dict[str, tuple[str, ...]] = {
    "anyio": ("interpreters/runtime/tasks.py", "interpreters/runtime/flows/activities.py"),
    "cronsim": ("interpreters/runtime/flows/schedules.py",),
    "cryptography": ("interpreters/wrappers/encryption/",),
    "gunicorn": (),
    "httpx": ("interpreters/blobs/ipfs.py",),
    "hypothesis": ("interpreters/conformance/",),
    "pytest": ("interpreters/conformance/", "interpreters/pytest_plugin.py", "interpreters/pytest_never_run.py"),
    "multiformats": ("interpreters/blobs/cid.py",),
    "prometheus_client": ("interpreters/stores/served/metrics.py",),
    "nats": ("interpreters/nats/", "interpreters/stores/nats/"),
    "opentelemetry": ("interpreters/wrappers/measuring.py",),
    "psycopg": ("interpreters/stores/postgres/",),
    "rich": ("interpreters/cli/", "interpreters/explore/report.py"),
    "starlette": (),
    "typer": ("interpreters/cli/",),
    "uvicorn": (),
}

# From the top floor down. Rooms of one floor may use each other where no other wall stands between them.
FLOORS = (
    (
        "interpreters/cli/",
        "interpreters/conformance/",
        "interpreters/pytest_failures.py",
        "interpreters/pytest_never_run.py",
        "interpreters/pytest_plugin.py",
        "interpreters/serving.py",
        "interpreters/sharing.py",
        "interpreters/store_testing.py",
    ),
    (
        "interpreters/explore/",
        "interpreters/flow_testing/",
        "interpreters/jsonl.py",
        "interpreters/migrating/",
        "interpreters/never_run.py",
        "interpreters/opening.py",
        "interpreters/wrappers/",
    ),
    ("interpreters/runtime/", "interpreters/stores/"),
    ("interpreters/blobs/", "interpreters/traces.py"),
    (
        "interpreters/access.py",
        "interpreters/clocks.py",
        "interpreters/disk/",
        "interpreters/error_pages/",
        "interpreters/nats/",
        "interpreters/threads/",
    ),
)
# The door of the package, which hands on what is opened, and no room.
DOOR = "interpreters/__init__.py"

STORES = (
    "interpreters/stores/memory.py",
    "interpreters/stores/file/",
    "interpreters/stores/served/",
    "interpreters/stores/sqlite/",
    "interpreters/stores/postgres/",
    "interpreters/stores/nats/",
)
UPKEEP = "interpreters/stores/file/upkeep/"

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
    "interpreters/cli/exits.py": {"os.open"},  # where a closed pipe's output goes
    "interpreters/cli/inputs.py": {"open"},  # what `import` reads
    # The directories of `explore_files`, which are made for it alone, and whether a descriptor appends or syncs.
    "interpreters/explore/files/explore.py": {"mkdir", "os.mkdir", "shutil.rmtree", "tempfile.mkdtemp"},
    "interpreters/explore/files/images.py": {"mkdir", "os.mkdir", "os.symlink", "shutil.rmtree", "write_bytes"},
    "interpreters/explore/files/patches.py": {"fcntl.fcntl"},
    "interpreters/explore/report.py": {"write_text"},  # a page to look at
    "interpreters/flow_testing/histories.py": {"mkdir", "write_bytes"},  # recorded journals, for a repository
    # Where servers of one's own have their data.
    "interpreters/nats/private_cluster.py": {
        "open",
        "shutil.rmtree",
        "shutil.which",
        "tempfile.mkdtemp",
        "write_text",
    },
    "interpreters/stores/postgres/private_server.py": {
        "shutil.rmtree",
        "shutil.which",
        "tempfile.mkdtemp",
        "unlink",
        "write_text",
    },
    "interpreters/sharing.py": {"os.open", "os.rename"},  # its log
    "interpreters/store_testing.py": {"tempfile.TemporaryDirectory"},  # for the store of one test
    "interpreters/threads/descriptors.py": {"os.open"},  # the null device, in the place of a parent's sockets
    "interpreters/stores/served/doors.py": {"os.open"},  # the directory of a socket whose path is long
    "interpreters/stores/served/listening.py": {
        "os.chmod",
        "os.fchmod",
        "os.rename",
        "os.unlink",
        "unlink",
    },  # its sockets
}

# What asks the system for anything. Of the file store's modules these may, for other things than the engine's files:
# one is the engine's host, the others are the operators' tools, which make and name whole directories, and wait.
SYSTEM = {"fcntl", "io", "mmap", "os", "pathlib", "shutil", "signal", "socket", "subprocess", "tempfile", "time"}
HOSTS = {"interpreters/stores/file/store.py", f"{UPKEEP}operations.py", f"{UPKEEP}shipping/running.py"}

# Each leaves its lock held where an interrupt comes at the wrong moment.
UNSAFE_WAITS = {"threading.Event", "threading.Condition", "threading.Semaphore", "threading.Barrier"}

SQL = re.compile(
    r"\s*(SELECT\b.*\bFROM\b|INSERT\s+INTO\b|UPDATE\b.*\bSET\b|DELETE\s+FROM\b"
    r"|(CREATE|ALTER|DROP)\s+(TABLE|INDEX|VIEW|TRIGGER|FUNCTION|SCHEMA)\b)",
    re.IGNORECASE | re.DOTALL,
)


def impure(house: Sources) -> Iterator[str]:
    for place in house.in_rooms("persist_effects/"):
        for name in house.imports(place):
            if name.partition(".")[0] not in PURE | {"persist_effects"}:
                yield f"{place} imports {name}"


def other_store(house: Sources) -> Iterator[str]:
    for store in STORES:
        others = tuple(other for other in STORES if other != store)
        for place in house.in_rooms(store):
            yield from (f"{place} imports {each}" for each in house.imported(place) if is_in(each, others))


def between(one: str, other: str) -> Callable[[Sources], Iterator[str]]:
    """A wall that neither side sees through."""

    def breaches(house: Sources) -> Iterator[str]:
        for here, there in ((one, other), (other, one)):
            for place in house.in_rooms(here):
                yield from (f"{place} imports {each}" for each in house.imported(place) if is_in(each, (there,)))

    return breaches


def upkeep(house: Sources) -> Iterator[str]:
    for place in house.in_rooms("interpreters/stores/file/"):
        # The room's own door is above both.
        if not is_in(place, (UPKEEP, "interpreters/stores/file/__init__.py")):
            yield from (f"{place} imports {each}" for each in house.imported(place) if is_in(each, (UPKEEP,)))


def upwards(house: Sources) -> Iterator[str]:
    for place in house.in_rooms("interpreters/"):
        if place == DOOR:
            continue
        floor = floor_of(place)
        if floor is None:
            yield f"{place} stands on no floor"
            continue
        for each in house.imported(place):
            above = floor_of(each)
            if each == DOOR or (above is not None and above < floor):
                yield f"{place} imports {each}, which is above it"


def floor_of(place: str) -> int | None:
    """The floor of a module, counted from the top, or None."""
    return next((number for number, rooms in enumerate(FLOORS) if is_in(place, rooms)), None)


def circles(house: Sources) -> Iterator[str]:
    left = {place: house.imported(place) - {DOOR} for place in house.sources}
    while free := [place for place, needed in left.items() if not needed & left.keys()]:
        for place in free:
            del left[place]
    # What is left stands in a circle, or is above one.
    while ends := [place for place in left if not any(place in needed for needed in left.values())]:
        for place in ends:
            del left[place]
    if left:
        yield f"{', '.join(sorted(left))} import each other"


def optional(house: Sources) -> Iterator[str]:
    for place in house.sources:
        for name in house.imports(place):
            if not is_in(place, OPTIONAL.get(name.partition(".")[0], (place,))):
                yield f"{place} imports {name}"


def system_calls(house: Sources) -> Iterator[str]:
    for place in house.in_rooms("interpreters/"):
        if place not in {"interpreters/disk/real.py", "interpreters/disk/files.py", "interpreters/disk/turns.py"}:
            found = changes_of_files(house.sources[place]) - OTHER_FILES.get(place, set())
            yield from (f"{place} calls {call}" for call in found)


@cache
def changes_of_files(source: str) -> set[str]:
    """The calls in a module that may change files, or open them."""
    found = set()
    for node in ast.walk(tree_of(source)):
        # One that is handed on is called elsewhere.
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "os" and node.attr in CHANGES_FILES:
            found.add(f"os.{node.attr}")
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        module, _, name = called.rpartition(".")
        if called == "open" or module in {"shutil", "tempfile", "fcntl"}:
            found.add(called)
        elif name in CHANGES_FILES_BY_PATH or (name == "open" and module.startswith("Path(")):
            found.add(name)
    return found


def engine_and_system(house: Sources) -> Iterator[str]:
    for place in house.in_rooms("interpreters/stores/file/"):
        if place not in HOSTS:
            asked = {name.partition(".")[0] for name in house.imports(place)} & SYSTEM
            yield from (f"{place} imports {name}" for name in asked)


def unsafe_waits(house: Sources) -> Iterator[str]:
    for place in house.in_rooms("interpreters/"):
        if not is_in(place, ("interpreters/conformance/facts/",)):
            named = {
                ast.unparse(node) for node in ast.walk(tree_of(house.sources[place])) if isinstance(node, ast.Attribute)
            }
            yield from (
                f"{place} has a {name}: take an `interpreters.threads.gates.Gate`" for name in named & UNSAFE_WAITS
            )


def requests_yielded(house: Sources) -> Iterator[str]:
    for place in house.in_rooms("persist_effects/"):
        # The generators of the codec are not programs.
        if place not in {"persist_effects/machine.py", "persist_effects/codec.py"}:
            yields = [node for node in ast.walk(tree_of(house.sources[place])) if isinstance(node, ast.Yield)]
            yield from (f"{place}:{node.lineno} yields: `yield from perform(request)`" for node in yields)


# Whose statements have names in them that the user gives, and those that any store with SQL is asked.
MAKES_SQL = {"persist_effects/following/tables.py", "interpreters/conformance/facts/sql.py"}


def sql(house: Sources) -> Iterator[str]:
    for place in house.sources.keys() - MAKES_SQL:
        for node in ast.walk(tree_of(house.sources[place])):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.match(node.value):
                yield f"{place}:{node.lineno} has SQL: it stands in a .sql file"


class Wall(NamedTuple):
    """What goes through a wall, by a function of all modules; and what is planted, where, and must be found."""

    breaches: Callable[[Sources], Iterator[str]]
    planted: tuple[tuple[str, str], ...]


WALLS = {
    "the core imports no interpreter and nothing impure": Wall(
        impure,
        (
            ("persist_effects/log.py", "import time"),
            ("persist_effects/kv.py", "def later():\n    from interpreters import open_store"),
            ("persist_effects/trace/diff.py", "import os.path"),
        ),
    ),
    "a store imports no other store": Wall(
        other_store,
        (
            ("interpreters/stores/file/engine.py", "from interpreters.stores.memory import MemoryStore"),
            ("interpreters/stores/memory.py", "from interpreters.stores import served"),
            ("interpreters/stores/served/client.py", "from interpreters.stores.file.store import FileStore"),
        ),
    ),
    "what drives programs and what answers them know nothing of each other": Wall(
        between("interpreters/runtime/", "interpreters/stores/"),
        (
            ("interpreters/runtime/store.py", "from interpreters.stores.memory import MemoryStore"),
            ("interpreters/stores/memory.py", "def later():\n    import interpreters.runtime.store"),
        ),
    ),
    "the file engine does not know who looks after it": Wall(
        upkeep, (("interpreters/stores/file/store.py", "from interpreters.stores.file.upkeep import verify"),)
    ),
    "no import runs up": Wall(
        upwards,
        (
            ("interpreters/disk/real.py", "from interpreters.stores.names import SortedNames"),
            ("interpreters/explore/limits.py", "from interpreters.conformance.model import StoreMachine"),
            ("interpreters/runtime/rounds.py", "from interpreters.opening import open_store"),
            ("interpreters/stores/memory.py", "from interpreters import Store"),
            ("interpreters/somewhere.py", "from interpreters.disk import real"),
        ),
    ),
    "no circle": Wall(
        circles,
        (
            ("persist_effects/requests.py", "def later():\n    from persist_effects import log"),
            ("interpreters/disk/files.py", "from interpreters.disk.real import RealDisk"),
        ),
    ),
    "an optional package is imported in its own room": Wall(
        optional,
        (
            ("interpreters/runtime/store.py", "import anyio.abc"),
            ("interpreters/explore/limits.py", "from rich import print"),
            ("interpreters/stores/memory.py", "def later():\n    import pytest"),
        ),
    ),
    "only the real disk makes system calls that change files": Wall(
        system_calls,
        (
            ("interpreters/stores/file/engine.py", "os.rename(a, b)"),
            ("interpreters/traces.py", "open(path)"),
            ("interpreters/jsonl.py", "Path(path).write_text(text)"),
            ("interpreters/blobs/memory.py", "shutil.rmtree(path)"),
        ),
    ),
    "the file engine asks the system for nothing but by requests to its disk": Wall(
        engine_and_system, (("interpreters/stores/file/engine.py", "import time"),)
    ),
    "nothing waits where an interrupt leaves a lock held": Wall(
        unsafe_waits, (("interpreters/stores/memory.py", "told = threading.Event()"),)
    ),
    "one line of the core yields requests": Wall(
        requests_yielded, (("persist_effects/kv.py", "def get(key):\n    return (yield KvGet(key))"),)
    ),
    "SQL stands in .sql files": Wall(sql, (("interpreters/stores/memory.py", "QUERY = '''\nselect a\nfrom b'''"),)),
}


@pytest.mark.parametrize("name", WALLS)
def test_nothing_goes_through_a_wall(name):
    assert not list(WALLS[name].breaches(HOUSE))


@pytest.mark.parametrize(
    ("name", "place", "text"), [(name, *planted) for name, wall in WALLS.items() for planted in wall.planted]
)
def test_what_is_planted_through_a_wall_is_found(name, place, text):
    breaches = set(WALLS[name].breaches(HOUSE.planted(place, text))) - set(WALLS[name].breaches(HOUSE))
    assert any(place in breach for breach in breaches)


def test_every_room_of_the_walls_is_there():
    rooms = {room for floor in FLOORS for room in floor} | {*STORES, UPKEEP, DOOR} | {*OTHER_FILES, *HOSTS}
    rooms |= {room for places in OPTIONAL.values() for room in places}
    assert not {room for room in rooms if not HOUSE.in_rooms(room)}


def test_the_real_disk_is_where_the_system_calls_are():
    assert {"os.mkdir", "os.open", "os.rename", "os.unlink", "os.fsync", "shutil.rmtree", "fcntl.fcntl"} <= (
        changes_of_files(HOUSE.sources["interpreters/disk/files.py"])
    )


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
        "for url in ('postgresql://db/app', 'nats://db/app'):\n"
        "    try: open_store(url)\n"
        "    except InvalidRequest as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == [
        "`arun` needs the package anyio: pip install anyio",
        "a store on PostgreSQL needs the package psycopg, of the extra `postgres`: pip install 'psycopg[binary]'",
        "a store on NATS needs the package nats-py, of the extra `nats`: pip install nats-py",
    ]


def test_the_conformance_suite_without_its_packages_names_the_extra():
    code = (
        "import sys\n"
        "sys.modules['hypothesis'] = None\n"
        "try: import interpreters.conformance\n"
        "except ModuleNotFoundError as error: print(error.name, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == (
        "hypothesis interpreters.conformance needs hypothesis, of the extra `testing`: pip install hypothesis\n"
    )


# The requests of a disk are named as what they are for a file, and always said with their module: `disk.Read`.
NAMED_WITH_THEIR_MODULE = {"interpreters/disk/requests.py"}


def test_no_two_things_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path in (*(ROOT / "persist_effects").rglob("*.py"), *(ROOT / "interpreters").rglob("*.py")):
        place = path.relative_to(ROOT).as_posix()
        if place not in NAMED_WITH_THEIR_MODULE:
            for name in names_of_things(ast.parse(path.read_text())):
                places.setdefault(name, []).append(place)
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def names_of_things(module: ast.Module) -> list[str]:
    """The public classes and types that a module defines."""
    names = [node.name for node in module.body if isinstance(node, ast.ClassDef)]
    for node in module.body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names += [target.id for target in targets if isinstance(target, ast.Name)]
    return [name for name in names if re.fullmatch(r"[A-Z]+[a-z]\w*", name)]


EXPORTS = {
    persist_effects: (
        "Abandoned AlreadyUsed Append Appended Begin BlobNotFound BlobRef CallerError Conflict CorruptStore Diverged "
        "Done Draft Effect Entry Erased Event ExpectRevision ExpectSeq FollowersBehind Group HandlerTable Handlers Hub "
        "InternalError InvalidAnswer InvalidRequest KeyLost KvDelete KvPut NeverRun NewerFormat NotAProgram "
        "NotARequest Page PersistError ReadModel RecordedError Request Retry Schema SchemaMismatch SnapshotMismatch "
        "Spinning Sql SqlFailed SqlModel State StoreClosed StoreLocked StoreUnavailable SubjectForgotten Suspended "
        "TooLarge TruncateThrough Truncated UncertainOutcome UnhandledEffect UnknownSubject ValueMismatch View all_of "
        "blob clock codec compaction decide decision erasure errors event follow followers is_erased kv log machine "
        "new_id now passing_over_erased perform program projection publish requests run schema sleep snapshot start "
        "subscription targets testing trace transact transaction view"
    ),
    interpreters: "Store open_store",
    interpreters.conformance: "Capabilities NotConforming StoreConformance check_conformance facts_of needs",
    interpreters.disk: (
        "Allocate CheckHeld Create DirectoryDisk ForeignFile LetGo List Lock MakeDirectory Modified Read ReadPlaces "
        "Remove Rename Size Sync SyncDirectory Touch Truncate Write WriteBack"
    ),
    interpreters.explore: (
        "Compact CrashStore Failure FaultCount Linearity Mark Observed Pause PlugPulled Promised Reopen Report "
        "Simulated Sleep explore explore_crashes explore_disk explore_effects simulate"
    ),
    interpreters.explore.files: "explore_files",
    interpreters.flow_testing: "ActivityCall FlowStuck FlowTest export_histories flow_test replay_histories",
    interpreters.stores.served: "RemoteStore serve",
    interpreters.wrappers: "Around Observing OverBudget Retrying budget telemetry wrapped",
    interpreters.wrappers.encryption: (
        "Encrypted Forgotten admit forget open_encrypted put_blob rewrap_keys rotate_key"
    ),
}


@pytest.mark.parametrize("module", EXPORTS, ids=lambda module: module.__name__)
def test_public_names_are_exported_on_purpose(module):
    assert sorted(module.__all__) == sorted(EXPORTS[module].split())
    assert all(hasattr(module, name) for name in module.__all__)


PUBLIC_FUNCTIONS = {
    "log": (
        "advance append append_expect append_many append_once begin drop head last_seq page_all read read_all "
        "read_back read_from read_range streams truncate_through wait"
    ),
    "kv": "delete delete_expect entries entry get get_or has keys put put_expect update wait",
    "blob": "cid_in get has put",
    "clock": "new_id now sleep",
    "decision": "decide",
    "transaction": "transact",
    "typed_values": "check_type value_as value_to_put",
    "projection": "project project_all project_all_resume project_resume",
    "snapshot": "checkpoint covered_seq kept read replay state_type_of write",
    "states": "kept_in record_of",
    "compaction": "compact maybe_compact should_compact",
    "subscription": "publish",
    "followers": "all_registered cancel forget lag names rebuild registered reset retry set_aside",
    "following.follow": "follow",
    "following.retention": "droppable",
    "holes": "holes_after missed_of",
    "view": "attach peek refresh value",
    "machine": (
        "all_of check_fresh check_returned ended next_request outcome_of outcomes_by_kind outcomes_of perform run "
        "settled start through unwind unwind_all"
    ),
    "contexts": "here leaves_contexts_alone own_contexts parts_in runs_of",
    "programs": "is_fresh_program program refused watch",
    "answers": "check_answers checked_rows fits rows_of_a_store",
    "rows": "check_row is_async_generator_row is_async_row is_program_row refuse_async",
    "slips": "instead_of_program instead_of_request said",
    "spinning": "counted give_up",
    "json_values": "decode_line from_json to_json",
    "sameness": "is_equal sameness",
    "trace.record": "record",
    "trace.replay": "check_trace check_unmasked fresh_program replay resume_at",
    "trace.masking": "masked with_marks",
    "trace.diff": "as_text compare diff handlers_of",
    "source": "source_of",
    "testing": "given perform_sequence",
    "codec": (
        "check_ops decode decode_answer decode_request encode encode_answer encode_apart encode_new_entry "
        "encode_new_event encode_new_events encode_request fresh from_plain "
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
