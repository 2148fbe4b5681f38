"""Every crash of plain code that writes files: `explore_files`."""

from interpreters.explore.files.explore import explore_files

__all__ = ["explore_files"]
