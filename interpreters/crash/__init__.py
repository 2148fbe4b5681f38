"""Trying a program against every crash: of the disk under its store (`explore_crashes`), and of itself."""

from interpreters.crash.crashes import explore_crashes
from interpreters.crash.effects import explore_effects
from interpreters.crash.report import Cell, Failure, Report
from interpreters.crash.simulated import Compact, Mark, Reopen

__all__ = ["Cell", "Compact", "Failure", "Mark", "Reopen", "Report", "explore_crashes", "explore_effects"]
