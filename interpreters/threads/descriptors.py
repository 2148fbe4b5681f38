"""What a forked child does with descriptors that it inherited, and must not use."""

import os
from collections.abc import Iterable
from contextlib import suppress


def close_copies(numbers: Iterable[int]) -> None:
    """Close this process's copies of descriptors that objects of Python's hold, without a word to any peer.

    Something else takes their numbers, so that an object which closes its own later closes nothing that is in use.

    Args:
        numbers: The descriptors; negative ones are closed already.
    """
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for number in numbers:
            if number >= 0:
                with suppress(OSError):
                    os.dup2(nothing, number, inheritable=False)
    finally:
        os.close(nothing)
