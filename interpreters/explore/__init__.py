"""Trying programs against what may happen: every crash of the disk, every fault of an effect, every interleaving."""

from interpreters.explore.crashes.crash_store import CrashStore
from interpreters.explore.crashes.disk_programs import Promised, explore_disk
from interpreters.explore.crashes.explore import explore_crashes
from interpreters.explore.crashes.plug import PlugPulled
from interpreters.explore.crashes.simulated import Compact, Mark, Reopen
from interpreters.explore.effects.explore import explore_effects
from interpreters.explore.report import Failure, FaultCount, Report
from interpreters.explore.schedule.explore import explore
from interpreters.explore.schedule.linear import Linearity
from interpreters.explore.schedule.observed import Observed
from interpreters.explore.schedule.requests import Pause
from interpreters.explore.schedule.simulate import Simulated, simulate
from persist_effects.requests import Sleep

__all__ = [
    "Compact",
    "CrashStore",
    "Failure",
    "FaultCount",
    "Linearity",
    "Mark",
    "Observed",
    "Pause",
    "PlugPulled",
    "Promised",
    "Reopen",
    "Report",
    "Simulated",
    "Sleep",
    "explore",
    "explore_crashes",
    "explore_disk",
    "explore_effects",
    "simulate",
]
