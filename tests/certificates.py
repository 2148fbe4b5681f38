"""Certificates that know themselves, for tests."""

import shutil
import subprocess
from pathlib import Path

from requirements import without


def self_signed(place: Path, host: str) -> tuple[Path, Path]:
    """A certificate of an address, and its key, in a directory."""
    openssl = shutil.which("openssl")
    if openssl is None:
        without("there is no openssl, which makes certificates: install it")
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout",
         place / "key", "-out", place / "cert", "-subj", "/CN=here", "-days", "2", "-addext",
         f"subjectAltName=IP:{host}"],
        check=True, capture_output=True,
    )  # fmt: skip
    return place / "cert", place / "key"
