"""A PostgreSQL server of one's own, from the machine's binaries: for the tests, the bench, and `make postgres`.

It listens at a socket in its own directory, and nowhere else, and is gone with all its data when it is stopped. Tests
that need one use that in the environment variable PERSIST_EFFECTS_POSTGRES_URL instead, where it is set.
"""

import atexit
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

import pytest

GIVEN = "PERSIST_EFFECTS_POSTGRES_URL"
"""Names the server to use, as a URL without options."""

REQUIRED = "PERSIST_EFFECTS_REQUIRE_SERVERS"
"""Where it is set, tests that find no server fail."""

_SCHEMAS = count(1)

_SETTINGS = {"listen_addresses": "", "max_connections": "200", "max_prepared_transactions": "4"}


def binaries() -> Path | None:
    """The directory of initdb and postgres, which is not always in the path; None where there is none."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return installed[-1].parent if installed else None


class PrivateServer:
    """A server in a directory of its own, run by a user that is not root, which PostgreSQL refuses."""

    def __init__(self, *, encoding: str = "UTF8", locale: str = "C.UTF-8") -> None:
        bin_directory = binaries()
        assert bin_directory is not None, "there are no binaries of PostgreSQL"
        self._bin = bin_directory
        self.directory = Path(tempfile.mkdtemp(prefix="persist-effects-postgres-"))
        self._user = _user() if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.directory, pwd.getpwnam(self._user).pw_uid, -1)
        # The password is for the test of wrong ones: at the socket everybody is trusted.
        self._run(
            "initdb", "--no-sync", "--encoding", encoding, "--locale", locale, "--auth", "trust", "-U", "postgres"
        )
        self._options = " ".join(
            f"-c {name}='{value}'" for name, value in {**_SETTINGS, "unix_socket_directories": self.directory}.items()
        )
        self.start()

    def start(self) -> None:
        """Start it, and return when it answers."""
        self._run("pg_ctl", "start", "--wait", "--log", str(self.directory / "log"), "--options", self._options)

    def stop(self) -> None:
        """Stop it, and take all of it away."""
        self._run("pg_ctl", "stop", "--mode", "immediate", is_checked=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def restart(self) -> None:
        """Stop it as an administrator does, and start it again."""
        self._run("pg_ctl", "stop", "--mode", "fast", "--wait")
        self.start()

    def kill(self) -> None:
        """Kill all its processes at once, as a lack of memory or a power cut would."""
        (first, *_) = (self.directory / "data" / "postmaster.pid").read_text().splitlines()
        children = subprocess.run(["pgrep", "-P", first], capture_output=True, text=True, check=False).stdout.split()
        for pid in (first, *children):
            os.kill(int(pid), signal.SIGKILL)
        for pid in (first, *children):
            _wait_until_gone(int(pid))

    def url(self, schema: str | None = None, database: str = "postgres", user: str = "postgres", **options: str) -> str:
        """The URL of a store on it."""
        place = urlencode({"host": str(self.directory), **({"schema": schema} if schema else {}), **options})
        return f"postgresql://{user}@/{database}?{place}"

    def _run(self, program: str, *arguments: str, is_checked: bool = True) -> None:
        command = [str(self._bin / program), "--pgdata", str(self.directory / "data"), *arguments]
        # What stays running must not hold a pipe of ours.
        with (self.directory / "commands").open("ab") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, user=self._user, check=False, cwd="/"
            )
        if is_checked and done.returncode:
            said = (self.directory / "commands").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"{program} ended with {done.returncode}: {said}")


def _user() -> str:
    names: Sequence[str] = [entry.pw_name for entry in pwd.getpwall()]
    return "postgres" if "postgres" in names else "nobody"


def _wait_until_gone(pid: int) -> None:
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        import select

        select.select([handle], [], [], 30)
    finally:
        os.close(handle)


@cache
def _own() -> PrivateServer:
    server = PrivateServer()
    atexit.register(server.stop)
    return server


def own_server() -> PrivateServer:
    """The server of this test process, which is made once and stays."""
    if binaries() is None:
        _without("there are no binaries of PostgreSQL: install them")
    return _own()


def new_store_url(**options: str) -> str:
    """The URL of a store in a schema that nobody else has."""
    schema = f"test_{os.getpid()}_{next(_SCHEMAS)}"
    given = os.environ.get(GIVEN)
    if given:
        return f"{given}?{urlencode({'schema': schema, **options})}"
    return own_server().url(schema, **options)


def _without(reason: str) -> None:
    if os.environ.get(REQUIRED):
        pytest.fail(reason)
    pytest.skip(f"{reason}, or set {GIVEN}")


def main() -> None:
    """Run a server until Ctrl-C, and say its URL."""
    server = PrivateServer()
    try:
        print(server.url("app"), flush=True)
        signal.sigwait([signal.SIGINT, signal.SIGTERM])
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
