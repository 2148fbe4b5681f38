"""The command that writes a project to begin with: what it writes runs, and its tests find what is planted in it."""

import json
import os
import signal
import subprocess
import sys

import pytest
from commanding import invoke
from places import ROOT

from interpreters.cli.quickstart import FILES, NEXT

COMMAND = [sys.executable, "-m", "interpreters.cli", "quickstart"]
# What the command starts finds modules there before all others.
WITH_A_PATH = "import os, sys, interpreters.cli as c; os.environ['PYTHONPATH'] = sys.argv.pop(1); c.main()"
TEST_OF_CRASHES = "test_a_transfer_survives_every_crash"
TEST_OF_ORDERS = "test_two_transfers_at_once_take_no_more_than_there_is"


def run(*command, cwd, **options):
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)


@pytest.fixture
def project(tmp_path):
    """What the command has written, and not run."""
    done = invoke("quickstart", tmp_path / "app", "--no-run")
    assert done.exit_code == 0, done.output
    return tmp_path / "app"


def change(project, *pairs):
    path = project / "accounts.py"
    text = path.read_text()
    for before, after in pairs:
        assert text.count(before) == 1
        text = text.replace(before, after)
    path.write_text(text)


def failed_tests(project):
    done = run(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", cwd=project)
    return {line.split("::")[1].split(" ")[0] for line in done.stdout.splitlines() if line.startswith("FAILED")}


def test_in_an_empty_directory_it_writes_a_project_and_runs_it_and_its_tests(tmp_path):
    done = run(*COMMAND, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(FILES) | {"store"} <= {path.name for path in tmp_path.iterdir()}
    assert "accounts/ada: 70\naccounts/bob: 30\n" in done.stdout
    assert "9 passed" in done.stdout
    assert "explored 5 interleavings in 1 test" in done.stdout
    for command in NEXT:
        assert f"  {command}\n" in done.stdout
        assert run(sys.executable, "-m", "interpreters.cli", *command.split()[1:], cwd=tmp_path).returncode == 0


def test_a_second_run_of_the_program_goes_on_with_its_store(project):
    for balance in (70, 140):
        assert f"accounts/ada: {balance}\n" in run(sys.executable, "accounts.py", cwd=project).stdout


def test_without_a_run_it_only_writes_the_files(project):
    assert sorted(path.name for path in project.iterdir()) == sorted(FILES)


def test_json_says_what_was_written_and_how_it_ran(tmp_path):
    done = invoke("quickstart", tmp_path / "app", "--json")
    answer = json.loads(done.stdout)
    assert answer == {
        "directory": f"{tmp_path}/app", "files": list(FILES), "program": "passed", "tests": "passed", "next": list(NEXT)
    }  # fmt: skip
    assert done.stderr == ""


def test_two_writes_that_a_crash_may_part_fail_its_crash_test(project):
    change(
        project,
        ("expected=state.seq),\n", "expected=state.seq)\n        )\n        yield from transact(\n"),
    )
    assert TEST_OF_CRASHES in failed_tests(project)


def test_a_transfer_that_does_not_say_what_it_relies_on_fails_the_test_of_every_order(project):
    change(project, (", expected=state.seq", ""))
    assert failed_tests(project) == {TEST_OF_ORDERS}


def test_without_pytest_it_says_what_to_install_and_that_is_no_failure(tmp_path):
    hide = "import sys; sys.modules['pytest'] = None; from interpreters.cli import main; main()"
    done = run(sys.executable, "-c", hide, "quickstart", "app", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not run, as pytest is not installed. Its extra: pip install 'persist-effects[testing]'\n" in done.stdout
    assert "\nthen, in the directory: pytest\n" in done.stdout
    assert "  persist-effects streams file:store\n" in done.stdout


def test_a_program_that_does_not_run_here_is_told_and_ends_with_1(tmp_path):
    # It stands before the real one, once the command itself has that.
    broken = tmp_path / "path"
    broken.mkdir()
    (broken / "msgspec.py").write_text("raise ImportError('planted')\n")
    for options, where in ((), "stdout"), (("--json",), "stderr"):
        done = run(
            sys.executable, "-c", WITH_A_PATH, broken, "quickstart", f"app{len(options)}", *options, cwd=tmp_path
        )
        assert done.returncode == 1
        assert "ImportError: planted" in getattr(done, where)
    assert json.loads(done.stdout)["program"] == "failed"


# What it refuses


def test_a_directory_that_is_not_empty_is_refused_with_what_is_there(tmp_path):
    for number in range(7):
        (tmp_path / f"mine{number}").touch()
    done = invoke("quickstart", tmp_path)
    assert done.exit_code == 2
    assert "is not empty, there is mine0, mine1, mine2, mine3, mine4 and 2 more: give a directory" in done.stderr
    assert len(list(tmp_path.iterdir())) == 7


@pytest.mark.parametrize("name", ["file", "file/below", "link"])
def test_a_path_that_is_no_directory_is_refused(tmp_path, name):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    done = invoke("quickstart", tmp_path / name)
    assert done.exit_code == 2
    assert str(tmp_path / name) in done.stderr
    assert ": give " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_directory_where_it_may_not_write_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    # Who may do all may not write there either.
    above = "/sys" if os.geteuid() == 0 else tmp_path
    done = invoke("quickstart", f"{above}/app")
    tmp_path.chmod(0o700)
    assert done.exit_code == 2
    assert "give a directory where you may write" in done.stderr


def test_a_home_that_only_a_shell_knows_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert invoke("quickstart", "~/app").exit_code == 2
    assert not list(tmp_path.iterdir())


# Ctrl-C


def test_interrupted_while_it_writes_it_ends_behind_a_file_and_says_what_it_has_left(tmp_path):
    script = """
import os, signal, sys
from interpreters.cli import main

def interrupt(frame, event, argument):
    if frame.f_code.co_name == "new_file":
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGINT)

sys.setprofile(interrupt)
main()
"""
    done = run(sys.executable, "-c", script, "quickstart", "app", cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr.splitlines() == [
        f"persist-effects: {tmp_path}/app is left, with README.md",
        "persist-effects: interrupted",
    ]
    assert [path.name for path in (tmp_path / "app").iterdir()] == ["README.md"]


def test_interrupted_while_it_runs_it_says_what_it_has_left(tmp_path):
    # The program's own process tells when it has begun, and waits then.
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "msgspec.py").write_text("open('../begun', 'w').write('begun'); open('../end')\n")
    os.mkfifo(tmp_path / "begun")
    os.mkfifo(tmp_path / "end")
    child = subprocess.Popen(
        [sys.executable, "-c", WITH_A_PATH, tmp_path / "path", "quickstart", "app"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert (tmp_path / "begun").read_text() == "begun"
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 130
    assert errors.splitlines() == [
        f"persist-effects: {tmp_path}/app is left, with {', '.join(FILES)}",
        "persist-effects: interrupted",
    ]


# What is written


def test_what_is_written_is_as_tidy_as_this_house(project):
    config = ["--config", ROOT / "pyproject.toml"]
    # To its own project `accounts` is no foreign package, and tests need no docstrings.
    done = run(sys.executable, "-m", "ruff", "check", *config, "--ignore", "D103", ".", cwd=project)
    assert done.returncode == 0, done.stdout
    done = run(sys.executable, "-m", "ruff", "format", "--diff", *config, ".", cwd=project)
    assert done.returncode == 0, done.stdout


def test_there_is_a_template_for_each_file_and_no_other():
    there = {path.name for path in (ROOT / "interpreters" / "cli" / "quickstart_files").iterdir()}
    assert there == {f"{name}.txt" for name in FILES}
