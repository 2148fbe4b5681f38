"""Programs together on one store: one order drawn by a seed (`simulate`), or every order (`explore`)."""

from interpreters.schedule.explore import explore
from interpreters.schedule.requests import Pause, Sleep
from interpreters.schedule.simulate import Simulated, simulate

__all__ = ["Pause", "Simulated", "Sleep", "explore", "simulate"]
