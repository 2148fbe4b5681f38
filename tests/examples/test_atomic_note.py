"""The example of a file that is replaced as a whole: what is wrong is found, and what is right passes."""

import subprocess
import sys

from places import EXAMPLES, ROOT

sys.path.insert(0, str(EXAMPLES))

import atomic_note

from interpreters.disk import DirectoryDisk


def test_only_the_right_way_to_save_passes_every_crash():
    ways = (atomic_note.save_without_sync, atomic_note.save_without_directory, atomic_note.save)
    assert [atomic_note.crashed(way).verdict for way in ways] == ["failed", "failed", "passed"]


def test_it_saves_and_loads_on_a_real_disk(tmp_path):
    with DirectoryDisk(tmp_path) as disk:
        assert disk.run(atomic_note.load("note")) is None
        for note in atomic_note.NOTES:
            disk.run(atomic_note.save("note", note))
            assert disk.run(atomic_note.load("note")) == note
    assert [path.name for path in tmp_path.iterdir()] == ["note"]


def test_it_says_what_it_found_when_it_is_run():
    done = subprocess.run(
        [sys.executable, EXAMPLES / "atomic_note.py"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert "save_without_sync: failed" in done.stdout
    assert "passes if the directory is synced after request 4" in done.stdout
    assert done.stdout.endswith("save: passed\nb'buy tea'\n")
