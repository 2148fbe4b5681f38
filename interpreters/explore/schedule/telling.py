"""An interleaving in words: all its steps, and in a line or two what makes it one."""

from collections.abc import Iterator, Sequence

from interpreters.explore.schedule.recorded import RecordedStep
from interpreters.explore.schedule.requests import Pause
from interpreters.explore.words import MARK, told, told_outcome
from persist_effects.requests import Sleep

_TOLD_STRETCH = 4
"""How many requests of a stretch are told in the essence."""


def told_steps(names: Sequence[str], trace: Sequence[RecordedStep]) -> Iterator[str]:
    """A line for each step: the program, the number of its request, the request and its outcome."""
    width = max(map(len, names))
    for step in trace:
        name = f"{names[step.index]:<{width}}  #{step.ordinal}"
        if step.fault:
            went = "was carried out" if step.fault == "crash-during" else "was not carried out"
            yield f"{MARK}{step.fault}: {names[step.index]} is gone, #{step.ordinal} {went}; it starts anew"
            continue
        yield f"{name} {told_request(step)}{told_end(step)}"


def sourced_steps(names: Sequence[str], trace: Sequence[RecordedStep]) -> Iterator[tuple[str, str]]:
    """The same lines, each with the line of the program that asked; nothing where that is not known."""
    return zip(told_steps(names, trace), (step.source for step in trace), strict=True)


def told_request(step: RecordedStep) -> str:
    """What a step has asked for."""
    return told(step.request)


def told_end(step: RecordedStep) -> str:
    """What came of a step, to stand behind it."""
    if isinstance(step.request, Sleep | Pause):
        return ""
    if step.outcome is None:
        return ", which does not end"
    later = "" if step.ended in (None, step.number) else f", in step {step.ended}"
    return told_outcome(step.request, step.outcome) + later


def essence(names: Sequence[str], trace: Sequence[RecordedStep]) -> Iterator[str]:
    """What is special about an order: who was held up where, and what others did meanwhile; who was gone where."""
    stretches = [*_stretches(trace)]
    for place, stretch in enumerate(stretches):
        step = stretch[0]
        if step.fault:
            what = "but was carried out" if step.fault == "crash-during" else "which is not carried out"
            yield f"{names[step.index]} is gone before the answer to #{step.ordinal} {told_request(step)}, {what}"
            continue
        following = stretches[place + 1 :]
        held_up = next((later[0] for later in following if later[0].index == step.index), None)
        if held_up is None or held_up.fault or held_up is following[0][0]:
            continue
        yield f"{names[step.index]} is held up before its #{held_up.ordinal} {told_request(held_up)}"
        meanwhile = following[0]
        words = [told_request(step) for step in meanwhile[:_TOLD_STRETCH]]
        more = f", and {len(meanwhile) - _TOLD_STRETCH} more" if len(meanwhile) > _TOLD_STRETCH else ""
        yield f"meanwhile {names[meanwhile[0].index]} does {', '.join(words)}{more}"


def _stretches(trace: Sequence[RecordedStep]) -> Iterator[list[RecordedStep]]:
    """The steps that one program makes without another between them; a crash stands by itself."""
    stretch: list[RecordedStep] = []
    for step in trace:
        if stretch and (step.index != stretch[-1].index or step.fault or stretch[-1].fault):
            yield stretch
            stretch = []
        stretch.append(step)
    if stretch:
        yield stretch
