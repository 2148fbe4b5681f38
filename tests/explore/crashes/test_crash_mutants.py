"""Wrong engines are found: each mutant of `mutants.py` by the look, and the class of fault, that its row says."""

from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant, edit

from interpreters.stores.file.writer import Writer

pytestmark = pytest.mark.exploration

CATCHABLE = [mutant for mutant in MUTANTS if not mutant.why]
NOT_CATCHABLE = [mutant for mutant in MUTANTS if mutant.why]
LOOKS = list(dict.fromkeys(look for mutant in MUTANTS for look in mutant.looks))


def name_of(mutant: Mutant) -> str:
    return f"{mutant.number} {mutant.name}"


@pytest.mark.parametrize("mutant", CATCHABLE, ids=name_of)
def test_a_mutant_is_caught_as_its_row_says(mutant, monkeypatch, tmp_path, capsys):
    (look,) = mutant.looks
    mutant.patch(monkeypatch)
    caught = look.run(tmp_path)
    row = f"{mutant.number:2} {mutant.name:62} {look.name:36} {caught.states:6,}"
    with capsys.disabled():
        print(f"\n{row}  {caught.kind} ({'; '.join(caught.by)})", end="")
    assert mutant.kind in caught.kind.split("; ")
    assert mutant.by in caught.by


@pytest.mark.parametrize("mutant", NOT_CATCHABLE, ids=name_of)
def test_a_mutant_of_which_it_is_said_that_nothing_can_catch_it_passes_everything(
    mutant, monkeypatch, tmp_path, capsys
):
    mutant.patch(monkeypatch)
    found = [look.run(tmp_path) for look in mutant.looks]
    with capsys.disabled():
        states = sum(caught.states for caught in found)
        print(f"\n{mutant.number:2} {mutant.name:62} not caught, {states:,} states. {mutant.why}", end="")
    assert [caught.kind for caught in found] == [""] * len(found)


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
def test_the_engine_as_it_is_passes(look, tmp_path: Path):
    caught = look.run(tmp_path)
    assert (caught.kind, caught.by) == ("", ())
    assert caught.states > 0


def test_a_mutant_of_lines_that_are_not_there_is_refused(monkeypatch):
    with pytest.raises(AssertionError, match="has not one but 0 of"):
        edit(Writer.mark, "-    no such line")(monkeypatch)


def test_the_numbers_of_the_table_are_in_order():
    assert [mutant.number for mutant in MUTANTS] == list(range(1, len(MUTANTS) + 1))
