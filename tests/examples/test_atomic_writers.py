"""The example `examples/atomic_writers.py`: what is found of the three packages, and that a missing one is named."""

import sys

import pytest
from places import EXAMPLES

sys.path.insert(0, str(EXAMPLES))

import atomic_writers

ANSWERS = {
    "atomicwrites": "atomicwrites 1.4.1  whole: yes  kept: yes  again: yes\n",
    "boltons": "boltons 26.2.0  whole: yes  kept: no  again: no\n",
    "safer": "safer 6.1.0  whole: no  kept: no  again: yes\n",
}


@pytest.mark.parametrize("package", ANSWERS)
def test_it_answers_this_of_a_package(capsys, package):
    atomic_writers.main(package)
    assert capsys.readouterr().out == ANSWERS[package]


def test_what_would_mend_a_package_is_named():
    boltons, safer = (atomic_writers.reports_of(package) for package in ("boltons", "safer"))
    assert (
        boltons["kept"].failures[0].remedy.startswith("passes if the directory '.' is synced after call #4 at boltons")
    )
    assert boltons["again"].failures[0].found.startswith("FileExistsError")
    assert safer["whole"].failures[0].remedy.startswith("passes if 'tmp00000001' is synced after call #2 at safer")


def test_a_package_that_is_not_installed_is_said_to_be_missing(capsys, monkeypatch):
    monkeypatch.setitem(atomic_writers.PACKAGES, "no_such_package", atomic_writers.save_by_safer)
    atomic_writers.main("no_such_package")
    assert capsys.readouterr().out == "no_such_package is missing: pip install no_such_package\n"


def test_the_whole_reports_are_printed_where_they_are_asked_for(capsys):
    atomic_writers.main("boltons", "--report")
    assert "FileExistsError" in capsys.readouterr().out
