"""What tests need of a machine beside Python's packages."""

import os
from typing import NoReturn

import pytest

REQUIRED = "PERSIST_EFFECTS_REQUIRE_SERVERS"
"""Where it is set, tests that lack something fail, and are not skipped."""


def without(reason: str) -> NoReturn:
    """Skip a test that lacks something, or where nothing may be lacking fail it."""
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(reason)
