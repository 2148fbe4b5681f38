"""The wheel that users install, in environments that have nothing else: the library, each extra by itself."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

TEN_LINES = """
from persist_effects import kv, log
from interpreters import open_store
with open_store("file:store") as store:
    store.run(log.append("orders", "placed", {"cents": 500}))
    store.run(kv.put("color", "red"))
with open_store("file:store") as store:
    assert [event.data for event in store.run(log.read("orders"))] == [{"cents": 500}]
    assert store.run(kv.get("color")) == "red"
with open_store("sqlite:store.db") as store:
    store.run(kv.put("color", "red"))
print("fine")
"""

USES = {
    "async": "import anyio; from interpreters import open_store; from persist_effects import kv\n"
    "print(anyio.run(open_store('memory:').arun, kv.put('color', 'red')) and 'fine')",
    "blobs": "from interpreters import open_store; from persist_effects import blob\n"
    "with open_store('file:store', blobs='dir:blobs') as store:\n"
    "    print(store.run(blob.get(store.run(blob.put(b'tea')))) == b'tea' and 'fine')",
    "ipfs": "import interpreters.blobs.ipfs; print('fine')",
    "cli": "import interpreters.cli.commands; print('fine')",
    "crypto": "import interpreters.wrappers.encryption; import cryptography; print('fine')",
    "metrics": "import interpreters.serving, prometheus_client; print('fine')",
    "nats": "import nats, interpreters.stores.nats; print('fine')",
    "postgres": "import psycopg, interpreters.stores.postgres; print('fine')",
    "flows": "from interpreters.runtime.flows import FlowHost, Schedule\n"
    "def nightly():\n    yield\n"
    "Schedule('nightly', '30 2 * * *', nightly); print('fine')",
    "otel": "import opentelemetry.trace, opentelemetry.metrics\n"
    "from interpreters import open_store; from interpreters.wrappers import telemetry, wrapped\n"
    "from persist_effects import kv\n"
    "print(wrapped(open_store('memory:'), telemetry).run(kv.put('color', 'red')) and 'fine')",
    "testing": "import interpreters.conformance.suite, interpreters.explore; print('fine')",
    "demo": "import rich, typer; print('fine')",
    "docs": "import furo, myst_parser, sphinx; print('fine')",
}
"""What each extra is for, used once."""

OF_DEVELOPERS = {"bench", "dev"}


def run(python: Path, *args: str, directory: Path) -> str:
    done = subprocess.run(
        [python, *args], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert done.returncode == 0, f"{' '.join(map(str, args))}\n{done.stdout}"
    return done.stdout


def pip(python: Path, *args: str, directory: Path) -> str:
    return run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", *args, directory=directory)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", str(directory), str(ROOT), directory=directory)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture
def python(tmp_path) -> Path:
    run(Path(sys.executable), "-m", "venv", str(tmp_path / "env"), directory=tmp_path)
    return tmp_path / "env" / "bin" / "python"


def constraints() -> list[str]:
    return ["--constraint", str(ROOT / "constraints.txt")]


def test_the_wheel_alone_keeps_what_is_written_with_nothing_else_installed(wheel, python, tmp_path):
    pip(python, "install", *constraints(), str(wheel), directory=tmp_path)
    assert run(python, "-I", "-c", TEN_LINES, directory=tmp_path) == "fine\n"
    installed = run(python, "-m", "pip", "--disable-pip-version-check", "list", "--format=freeze", directory=tmp_path)
    names = {line.partition("==")[0] for line in installed.split()}
    assert names - {"pip", "setuptools"} == {"msgspec", "persist-effects"}


def test_the_command_without_its_extra_says_what_to_install(wheel, python, tmp_path):
    pip(python, "install", *constraints(), str(wheel), directory=tmp_path)
    done = subprocess.run(
        [python.with_name("persist-effects"), "--help"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert "persist-effects[cli]" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_the_pages_of_errors_are_in_the_wheel_and_need_no_extra(wheel, python, tmp_path):
    pip(python, "install", *constraints(), str(wheel), directory=tmp_path)
    pages = ROOT / "interpreters" / "error_pages"
    for command in ("-m", "interpreters.error_pages"), (str(python.with_name("persist-effects")), "explain"):
        listed = run(python, "-I", *command, directory=tmp_path).splitlines()
        assert [line.split()[0] for line in listed] == sorted({page.stem for page in pages.glob("*.md")} - {"index"})
        assert run(python, "-I", *command, "Truncated", directory=tmp_path) == (pages / "Truncated.md").read_text()


def test_the_wheel_says_which_types_it_has_to_checkers(wheel, python, tmp_path):
    pip(python, "install", *constraints(), str(wheel), directory=tmp_path)
    where = run(
        python,
        "-I",
        "-c",
        "import interpreters, persist_effects as p; print(p.__path__[0], interpreters.__path__[0])",
        directory=tmp_path,
    )
    assert all(Path(place, "py.typed").exists() for place in where.split())


@pytest.mark.parametrize("extra", sorted(USES))
def test_each_extra_alone_brings_what_it_is_for(extra, wheel, python, tmp_path):
    pip(python, "install", *constraints(), f"{wheel}[{extra}]", directory=tmp_path)
    assert run(python, "-I", "-c", USES[extra], directory=tmp_path).splitlines()[-1] == "fine"


def test_there_is_a_use_for_each_extra():
    assert set(USES) == set(PROJECT["optional-dependencies"]) - OF_DEVELOPERS


def test_from_the_wheel_quickstart_writes_a_project_and_says_what_its_tests_need(wheel, python, tmp_path):
    pip(python, "install", *constraints(), f"{wheel}[cli]", directory=tmp_path)
    printed = run(python.with_name("persist-effects"), "quickstart", "app", directory=tmp_path)
    assert "accounts/ada: 70" in printed
    assert "pip install 'persist-effects[testing]'" in printed
    # What is installed is asked for the extra, not an index.
    pip(python, "install", *constraints(), "persist-effects[testing]", directory=tmp_path)
    assert "9 passed" in run(python.with_name("pytest"), directory=tmp_path / "app")
