"""The host of durable flows: it takes them up, runs their activities, and wakes them."""

from interpreters.runtime.flows.host import FlowHost
from interpreters.runtime.flows.queues import Queue
from interpreters.runtime.flows.schedules import Schedule

__all__ = ["FlowHost", "Queue", "Schedule"]
