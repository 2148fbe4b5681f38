"""The request of simulated stores: `Pause`."""

from persist_effects.requests import Request


class Pause(Request[None], frozen=True, tag="simulate/pause"):
    """Let other programs go first, here. A store's handler that is a generator function yields it between two steps.

    So an operation that is not one step in reality is not one step in the simulation either.

    >>> Pause().op
    'simulate/pause'
    """
