"""A PostgreSQL server of one's own, from the machine's binaries: for tests, for measurements, and for a first look.

It listens at a socket in a directory of its own and nowhere else, and is gone with all its data when it is stopped.
``python -m interpreters.stores.postgres.private_server`` runs one until Ctrl-C, and prints the URL of a store on it.
"""

import os
import pwd
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote, urlencode

from persist_effects.errors import StoreUnavailable

_SETTINGS = {"listen_addresses": "", "max_connections": "200", "max_prepared_transactions": "4"}

_PATIENCE_SECONDS = 60

_NOBODY = "999999999"
"""The number of no process: Linux has none so high."""


def binaries() -> Path | None:
    """Where initdb and postgres are, of the newest release.

    Returns:
        The directory, which is not always in the path; None where there is none.
    """
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    return installed[-1].parent if installed else None


class PrivateServer:
    """A server that is made and started, run by a user that is not root, which PostgreSQL refuses.

    Args:
        encoding: That of its databases.
        locale: Theirs.
        settings: Settings of the server beside its own, by their names.

    Raises:
        StoreUnavailable: If there are no binaries, or it does not start.
    """

    def __init__(
        self, *, encoding: str = "UTF8", locale: str = "C.UTF-8", settings: Mapping[str, str] | None = None
    ) -> None:
        bin_directory = binaries()
        if bin_directory is None:
            raise StoreUnavailable("there are no binaries of PostgreSQL here: install its server")
        self._bin = bin_directory
        self._settings = _SETTINGS | dict(settings or {})
        self.directory = Path(tempfile.mkdtemp(prefix="persist-effects-postgres-"))
        self._user = _user() if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.directory, pwd.getpwnam(self._user).pw_uid, -1)
        try:
            self._run("initdb", "--no-sync", f"--encoding={encoding}", f"--locale={locale}", "--username=postgres")
            self.start()
        except BaseException:
            self.stop()
            raise

    def start(self) -> None:
        """Start it, and return when it answers."""
        settings = {**self._settings, "unix_socket_directories": str(self.directory)}
        options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        self._run("pg_ctl", "start", "--wait", "--log", str(self.directory / "log"), "--options", options)

    def stop(self) -> None:
        """Stop it, and take all of it away."""
        self._run("pg_ctl", "stop", "--mode=immediate", is_checked=False)
        shutil.rmtree(self.directory, ignore_errors=True)

    def restart(self) -> None:
        """Stop it as an administrator does, whoever is connected, and start it again."""
        self._run("pg_ctl", "stop", "--mode=fast", "--wait")
        self.start()

    def kill(self) -> None:
        """Kill all its processes at once, as a machine without memory does."""
        pid_path = self.directory / "data" / "postmaster.pid"
        first, *rest = pid_path.read_text().splitlines()
        # First the one that makes the others, so that none of them is missed.
        _kill([int(first)])
        _kill(_working_in(pid_path.parent))
        # Its number stays taken until whoever adopted it asks how it ended; meanwhile it must not pass for running.
        pid_path.write_text("\n".join([_NOBODY, *rest, ""]))
        (self.directory / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def url(self, schema: str, *, database: str = "postgres", user: str = "postgres", **options: str) -> str:
        """The URL of a store on it.

        Args:
            schema: The store's schema.
            database: The database.
            user: Who connects.
            options: Others, of the store or its driver.

        Returns:
            The URL.
        """
        given = urlencode({"host": str(self.directory), "schema": schema, **options}, quote_via=quote)
        return f"postgresql://{user}@/{database}?{given}"

    def _run(self, program: str, *arguments: str, is_checked: bool = True) -> None:
        command = [str(self._bin / program), "--pgdata", str(self.directory / "data"), *arguments]
        output_path = self.directory / "commands"
        # What stays running must not hold a pipe of ours.
        with output_path.open("ab") as output:
            done = subprocess.run(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=self._user,
                check=False,
                cwd="/",
                timeout=_PATIENCE_SECONDS,
            )
        if is_checked and done.returncode:
            said = output_path.read_text(errors="replace")[-2000:]
            raise StoreUnavailable(f"{program} ended with {done.returncode}: {said}")


def _user() -> str:
    return "postgres" if "postgres" in {entry.pw_name for entry in pwd.getpwall()} else "nobody"


def _working_in(directory: Path) -> list[int]:
    """The processes that have it as their working directory."""
    pids = []
    for path in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            if path.readlink() == directory.resolve():
                pids.append(int(path.parent.name))
    return pids


def _kill(pids: list[int]) -> None:
    """Kill processes, and return when they are gone."""
    handles = []
    for pid in pids:
        with suppress(ProcessLookupError):
            handles.append(os.pidfd_open(pid))
    for handle in handles:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
    for handle in handles:
        select.select([handle], [], [], _PATIENCE_SECONDS)
        os.close(handle)


def main() -> None:
    """Run a server until Ctrl-C, and say where it is."""
    server = PrivateServer()
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
        print(server.url("app"), flush=True)
        signal.sigwait([signal.SIGINT, signal.SIGTERM])
    finally:
        server.stop()


if __name__ == "__main__":
    main()
