"""Names in order, and the highest number under a prefix: each answer is what a look at all names says."""

import random
import sys

import pytest

from interpreters.stores import names as names_module
from interpreters.stores.names import SortedNames, end_of

PREFIXES = ("", "a", "ab", "b", "b/", "z", "\U0010ffff", "a\U0010ffff", "\ud7ff")


class Numbered:
    """Names with numbers that only grow, and the same kept in order."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.members = {}
        self.names = SortedNames(self.members, lambda member: member[1])
        self.number = 0

    def name(self):
        return self.random.choice(["a", "ab", "b/", "\U0010ffff", "a\U0010ffff", "\ud7ffé"]) + "".join(
            self.random.choices("01", k=self.random.randrange(9))
        )

    def put(self, name):
        self.names.note(name)
        self.number += 1
        self.members[name] = (name, self.number)

    def remove(self, name):
        self.names.note(name)
        self.members.pop(name, None)

    def change(self, count=1):
        for _ in range(count):
            name = self.name()
            self.remove(name) if self.random.random() < 0.2 else self.put(name)

    def check(self):
        prefix = self.random.choice([*PREFIXES, self.name()])
        after, limit = self.random.choice(["", prefix, self.name()]), self.random.randrange(1, 60)
        under = sorted(name for name in self.members if name.startswith(prefix))
        assert self.names.page(prefix, after, limit) == [name for name in under if name > after][:limit]
        number = self.random.randrange(self.number + 1)
        further = [self.members[name] for name in under if self.members[name][1] > number]
        assert list(self.names.past(prefix, number)) == further
        assert self.names.count_past(prefix, number, 10) >= min(len(further), 11)
        return prefix, max((self.members[name][1] for name in under), default=0)


@pytest.fixture(autouse=True)
def _short_runs(monkeypatch):
    monkeypatch.setattr(names_module, "RUN", 4)
    monkeypatch.setattr(names_module, "BLOCK", 3)
    monkeypatch.setattr(names_module, "NOTED", 16)


@pytest.mark.parametrize("seed", range(30))
def test_names_that_come_and_go_are_listed_as_a_look_at_all_of_them_says(seed):
    numbered = Numbered(seed)
    for _ in range(150):
        numbered.change(numbered.random.randrange(12))
        prefix, newest = numbered.check()
        # That of a name that has gone may stay the highest one.
        assert newest <= numbered.names.newest(prefix) <= numbered.number


@pytest.mark.parametrize("seed", range(10))
def test_where_no_name_goes_the_newest_number_is_that_of_a_look_at_all_of_them(seed):
    numbered = Numbered(seed)
    for _ in range(150):
        for _ in range(numbered.random.randrange(12)):
            numbered.put(numbered.name())
        prefix, newest = numbered.check()
        assert numbered.names.newest(prefix) == newest


class _Interrupt(BaseException):
    pass


@pytest.mark.parametrize("seed", range(20))
def test_an_interrupt_at_any_line_of_a_change_leaves_the_names_as_they_are_in_the_mapping(seed):
    numbered = Numbered(seed)
    lines_left = 0

    def trace(frame, event, argument):
        nonlocal lines_left
        if frame.f_code.co_filename != names_module.__file__:
            return None
        lines_left -= event == "line"
        if lines_left == 0:
            raise _Interrupt
        return trace

    numbered.check()
    before = sys.gettrace()
    for _ in range(200):
        lines_left = numbered.random.randrange(1, 120)
        sys.settrace(trace)
        try:
            numbered.change(numbered.random.randrange(8))
            numbered.names.newest("a")
        except _Interrupt:
            pass
        finally:
            # That of coverage, where it is measured.
            sys.settrace(before)
        prefix, newest = numbered.check()
        assert newest <= numbered.names.newest(prefix) <= numbered.number


def test_the_first_string_after_a_prefix_comes_after_all_that_begin_with_it():
    for prefix in PREFIXES:
        end = end_of(prefix)
        assert end is None or prefix + "\U0010ffff" * 3 < end
    assert end_of("a\U0010ffff") == "b"
    assert end_of("\U0010ffff") is None
