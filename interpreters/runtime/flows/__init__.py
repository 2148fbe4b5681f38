"""The host of durable flows: it takes them up, runs their activities, and wakes them."""

from interpreters.runtime.flows.host import FlowHost

__all__ = ["FlowHost"]
