"""Record what a program was answered, and replay it: programs are functions of their answers.

`record` runs a program and gives its trace. `replay` runs it from the trace, without a store, and raises `Diverged`
where it is not the program that was recorded. `resume_at` goes back to any of its requests, and `Continuation` goes on
from there as often as you like, with other answers, or on another machine. `diff` and `compare` say where two traces,
or a trace and a store, differ. `masked` leaves values out of a trace that is only to be compared.

Wherever a program is asked for, give a fresh generator, or a function without arguments that makes one.

>>> from persist_effects import kv
>>> from persist_effects.requests import Entry, KvGet
>>> outcome, trace = record(kv.get("color"), {KvGet: lambda request: Entry("red", 1)})
>>> outcome
Answered(value='red')
>>> print(trace[0])
KvGet(key='color') → Entry(value='red', revision=1)
>>> replay(kv.get("color"), trace)
'red'
>>> replay(kv.get("size"), trace)
Traceback (most recent call last):
persist_effects.errors.Diverged: the program diverges from its trace at request 0: record anew what was changed ...
  expected:   KvGet(key='color')
  actual:     KvGet(key='size')
  source:     persist_effects/kv.py:... in get
  last match: none
"""

from persist_effects.trace.diff import Difference, as_text, compare, diff
from persist_effects.trace.format import Recorded, Trace
from persist_effects.trace.masking import masked
from persist_effects.trace.record import record
from persist_effects.trace.replay import Continuation, replay, resume_at

__all__ = [
    "Continuation",
    "Difference",
    "Recorded",
    "Trace",
    "as_text",
    "compare",
    "diff",
    "masked",
    "record",
    "replay",
    "resume_at",
]
