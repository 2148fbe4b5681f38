"""Type variables that are Any where nobody says them, so that `Event`, `Entry` and `Schema` may be written bare.

Only type checkers know such defaults on every Python that we run on: each of them brings the module that has them.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    HeldT_co = TypeVar("HeldT_co", covariant=True, default=Any)
    EventDataT = TypeVar("EventDataT", default=Any)
else:
    from typing import TypeVar

    HeldT_co = TypeVar("HeldT_co", covariant=True)
    EventDataT = TypeVar("EventDataT")
