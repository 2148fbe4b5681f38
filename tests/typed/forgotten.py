"""pyright's rule finds a forgotten ``yield from``: this file is checked by pyright, not run.

That the ignored line would be an error without its comment is an error itself where it is not.
"""
# pyright: reportUnusedCallResult=error, reportUnnecessaryTypeIgnoreComment=error

from persist_effects import Effect, kv, log


def place_order(number: int) -> Effect[int]:
    """Forgets to run the second of its programs."""
    revision = yield from kv.put("latest", number)
    log.append("orders", "placed", number)  # pyright: ignore[reportUnusedCallResult]
    return revision
