"""Interpreters around interpreters: what each adds, it adds to any store."""

from interpreters.wrappers.around import Around, wrapped
from interpreters.wrappers.budgets import OverBudget, budget
from interpreters.wrappers.measuring import telemetry
from interpreters.wrappers.observing import Observing
from interpreters.wrappers.retrying import Retrying

__all__ = ["Around", "Observing", "OverBudget", "Retrying", "budget", "telemetry", "wrapped"]
