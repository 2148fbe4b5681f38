"""Tests of durable flows: with a clock that the test moves, and of recorded journals against the code of today."""

from interpreters.flow_testing.fakes import ActivityCall
from interpreters.flow_testing.histories import export_histories, replay_histories
from interpreters.flow_testing.testing import FlowStuck, FlowTest, flow_test

__all__ = ["ActivityCall", "FlowStuck", "FlowTest", "export_histories", "flow_test", "replay_histories"]
