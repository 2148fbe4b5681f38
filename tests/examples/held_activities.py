"""Activities that stop midway until a test lets them go on, so that a host can be closed while they are under way."""

from collections.abc import Callable
from threading import Event
from typing import Any

from persist_effects import flow
from persist_effects.flow.defining import activity_code


class HeldActivity:
    """Stands in for an activity: it says that it was begun, and does nothing before it is let go.

    Args:
        function: The activity, which is called in the end.
        when: Of which calls: of those with these arguments. Others are not held.
    """

    def __init__(self, function: Callable[..., Any], when: Callable[..., bool] = lambda *_: True) -> None:
        self.begun = Event()
        self.may_end = Event()
        code = activity_code(function)

        @flow.activity(name=code.name, repeat=code.repeat, retry=code.retry, timeout=code.timeout)
        def held(*args: Any, **named: Any) -> Any:
            if when(*args):
                self.begun.set()
                assert self.may_end.wait(60)
            return function(*args, **named)

        self.activity = held

    def in_place_in(self, activities: list[Callable[..., Any]]) -> list[Callable[..., Any]]:
        """Activities, with this one in the place of the one of its name."""
        name = activity_code(self.activity).name
        return [self.activity if activity_code(each).name == name else each for each in activities]

    def wait(self) -> None:
        assert self.begun.wait(60)

    def __enter__(self) -> "HeldActivity":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.may_end.set()


def counted(function: Callable[..., Any], seen: list[Any]) -> Callable[..., Any]:
    """An activity of the same name that notes with what it was called."""
    code = activity_code(function)

    @flow.activity(name=code.name, repeat=code.repeat, retry=code.retry, timeout=code.timeout)
    def noted(*args: Any, **named: Any) -> Any:
        seen.append((*args, *named.values()))
        return function(*args, **named)

    return noted
