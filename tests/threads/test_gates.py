"""What threads wait at: an interrupt at any step leaves an open gate open, and nobody waits for what has come."""

import contextlib
import itertools
import threading

from interrupts import InterruptInside

from interpreters.stores import asking
from interpreters.threads import gates
from interpreters.threads.gates import Gate
from persist_effects.requests import Answered

FILES = (gates.__file__, asking.__file__)


def open_gates_that_were_waited_at():
    """An open gate for each step at which the one who waited there was interrupted, and that step."""
    for at in itertools.count(1):
        gate = Gate()
        gate.open()
        with contextlib.suppress(KeyboardInterrupt), InterruptInside(at, FILES) as interrupt:
            gate.wait(60.0)
        if not interrupt.place:
            return
        yield interrupt.place, gate


def test_a_gate_stays_open_whenever_who_waits_at_it_is_interrupted():
    left = dict(open_gates_that_were_waited_at())
    assert len(left) > 5
    assert [place for place, gate in left.items() if not gate.wait(0.0)] == []


def test_others_get_through_a_gate_at_which_somebody_was_interrupted():
    for place, gate in open_gates_that_were_waited_at():
        passed = []
        # Not the main thread, which alone looks again and again.
        other = threading.Thread(target=lambda gate=gate, passed=passed: passed.append(gate.wait(1.0)))
        other.start()
        other.join()
        assert passed == [True], place


def test_who_is_interrupted_while_an_answer_comes_does_not_wait_for_it_for_ever():
    for at in itertools.count(1):
        with contextlib.suppress(KeyboardInterrupt), InterruptInside(at, FILES) as interrupt:
            asking.asked_alone(lambda done: done(Answered("b")))
        if not interrupt.place:
            break
    assert at > 10


def test_a_gate_that_is_opened_again_and_again_lets_all_through():
    gate, passed = Gate(), []
    others = [threading.Thread(target=lambda: passed.append(gate.wait(60.0))) for _ in range(8)]
    for other in others:
        other.start()
    for _ in range(1_000):
        gate.open()
    for other in others:
        other.join(60.0)
    assert passed == [True] * 8
