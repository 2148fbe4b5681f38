"""The file of tests that docs/how-to/testing.md shows runs under pytest, as the page says."""

import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT
from test_docs import blocks


@pytest.mark.exploration
def test_the_file_passes_once_its_trace_was_written(tmp_path: Path) -> None:
    (code,) = [block.code for block in blocks(ROOT / "docs/how-to/testing.md") if "# test_orders.py" in block.code]
    (tmp_path / "test_orders.py").write_text(code)

    def told_by_pytest(*options: str) -> str:
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False).stdout

    assert "--update-traces" in told_by_pytest()
    assert "7 passed" in told_by_pytest("--update-traces")
    told = told_by_pytest()
    assert "7 passed" in told
    assert "interleavings in 1 test" in told
