"""A third party's store, of a package that registers it, passes the whole suite; what cannot be had says what to do."""

import subprocess
import sys

import pytest
from places import ROOT

from interpreters import open_store
from interpreters.conformance import StoreConformance
from persist_effects import InvalidRequest, log

EXAMPLES = ROOT / "examples"


def installed(folder, package, entry_points):
    """A package's metadata, as an installer leaves it."""
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[persist_effects.stores]\n{entry_points}\n")
    return folder


@pytest.fixture(autouse=True, scope="module")
def dict_scheme(tmp_path_factory):
    folder = installed(tmp_path_factory.mktemp("site"), "dict_store", "dict = dict_store:DictStore")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(str(EXAMPLES))
        patched.syspath_prepend(str(folder))
        yield


@pytest.mark.exploration
class TestDictStore(StoreConformance):
    def open_store(self):
        return open_store("dict:")


def test_it_takes_at_most_150_lines():
    assert len((EXAMPLES / "dict_store.py").read_text("utf-8").splitlines()) <= 150


def test_an_unknown_scheme_names_those_of_other_packages_too():
    with pytest.raises(
        InvalidRequest, match=r"memory:, file:, sqlite:, postgresql:, nats:, unix:, tcp:, spawn:, crash:, dict:$"
    ):
        open_store("oracle:x")


@pytest.mark.parametrize(
    ("entry_point", "message"),
    [
        ("broken = no_such_module:open", r"broken: is the scheme of no_such_module:open of other, which cannot be lo"),
        ("broken = dict_store:missing", r"which cannot be loaded: AttributeError: .*: install what it needs, or mend"),
        ("broken = dict_store:__doc__", r"of other, which is a str, .*: let the entry point name a function of \(rest"),
        (
            "broken = builtins:dict.fromkeys",
            r"what builtins:dict.fromkeys of other opens for broken: is a dict",
        ),
        (
            "dict = dict_store:State",
            r"two stores, dict_store:DictStore of dict_store and dict_store:State of other: uninst",
        ),
    ],
    ids=["no module", "no name", "no function", "no interpreter", "two of one scheme"],
)
def test_a_store_that_cannot_be_had_says_whose_it_is_and_what_to_do(tmp_path, monkeypatch, entry_point, message):
    monkeypatch.syspath_prepend(str(installed(tmp_path, "other", entry_point)))
    with pytest.raises(InvalidRequest, match=message):
        open_store(f"{entry_point.partition(' ')[0]}:")


def test_one_package_found_twice_is_one(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(installed(tmp_path, "dict_store", "dict = dict_store:DictStore")))
    with open_store("dict:") as store:
        assert store.run(log.append("a", "made", 1)).seq == 1


def test_our_own_schemes_are_nobody_elses_and_look_for_no_packages(tmp_path):
    installed(tmp_path, "thief", "memory = no_such_module:open")
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(tmp_path)!r})\n"
        "from interpreters import open_store\n"
        "before = 'importlib.metadata' in sys.modules\n"
        "print(type(open_store('memory:').interpreter).__name__, before or 'importlib.metadata' not in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "MemoryStore True\n"


def test_what_it_cannot_take_is_refused():
    with pytest.raises(InvalidRequest, match="it takes no options"):
        open_store("dict:x")
