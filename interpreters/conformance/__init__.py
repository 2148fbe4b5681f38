"""The one suite that every store passes, third parties' too: facts, and a search beside an obvious model."""

from interpreters.conformance.suite import (
    Capabilities,
    NotConforming,
    StoreConformance,
    check_conformance,
    facts_of,
    needs,
)

__all__ = ["Capabilities", "NotConforming", "StoreConformance", "check_conformance", "facts_of", "needs"]
