"""`CrashStore`: a store whose plug a test pulls where it likes, in the middle of a program too."""

import os
from collections.abc import Callable
from typing import Any

from interpreters.disk.keeping import Keep, check_keep
from interpreters.explore.crashes.crash_files import CrashFiles
from interpreters.runtime.interpreter import Interpreter
from interpreters.runtime.store import Store
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handlers
from persist_effects.rows import is_async_row, is_program_row


class CrashStore(Store):
    """A store of files on a simulated disk, which `open_store` opens for ``crash:``.

    Once its plug is pulled, whatever was run on it is gone with its process: each request, also one that is on its way
    in another thread, raises `PlugPulled`. So does the row of an effect, so that nothing is sent by what is gone.

    >>> from interpreters import open_store
    >>> from persist_effects import log
    >>> store = open_store("crash:", seed=7)
    >>> store.run(log.append("orders/1", "placed", {"total": 12})).seq
    1
    >>> store.crash()
    >>> store = store.restart()
    >>> [event.data for event in store.run(log.read("orders/1"))]
    [{'total': 12}]
    """

    def __init__(
        self, interpreter: CrashFiles, *, effects: Handlers | None = None, blobs: Interpreter | None = None
    ) -> None:
        self._files = interpreter
        self._given = effects, blobs
        powered = {kind: self._powered(row) for kind, row in (effects or {}).items()}
        super().__init__(interpreter, effects=powered, blobs=blobs)
        interpreter.plug.on_pull(lambda: self._sleepers.close(interpreter.plug.gone))

    def __repr__(self) -> str:
        pulled = self._files.plug.pulled
        return f"<{pulled or 'a CrashStore that goes on'}; to have the same again:\n{self._files.story}>"

    def crash(self, keep: Keep | None = None, *, at: int | str | None = None) -> None:
        """Pull the plug: what was not synced is lost, but for what is kept.

        Args:
            keep: What of the unsynced stays: ``"nothing"``, ``"everything"``, or what is drawn by a number, as a file
                system of the store's ``profile`` may have it: some of the writes and of the names, and one write torn.
                Unless given, the number is drawn by the store's seed.
            at: Not now, but right before a request of the disk that is still to come: the next of a kind, such as
                ``"sync"``, or the one that comes after so many others. So the plug is pulled in the middle of a commit.

        Raises:
            InvalidRequest: If ``keep`` or ``at`` is none of these.
            PlugPulled: If it was pulled before.

        >>> from interpreters import open_store
        >>> from interpreters.explore import PlugPulled
        >>> from persist_effects import log
        >>> store = open_store("crash:")
        >>> store.crash(at="sync", keep="nothing")
        >>> try:
        ...     store.run(log.append("orders/1", "placed", 12))
        ... except PlugPulled:
        ...     store = store.restart()
        >>> store.run(log.read("orders/1"))
        []
        """
        if keep is not None:
            check_keep(keep)
        self._files.crash(keep, at)

    def fail(self, op: str, error: OSError) -> None:
        """Have the next request of the disk of one kind fail.

        What it leaves is what such a request leaves on a real disk: of a failed write perhaps a part, and after a
        failed sync the system takes for written what is not.

        Args:
            op: Its kind: "write", "sync", "create", "rename", "sync-directory" and so on.
            error: What the disk says, such as ``OSError(errno.EIO)``.

        Raises:
            InvalidRequest: If there is no such kind, or the error is not an OSError with a number.
            PlugPulled: If the plug was pulled.

        >>> import errno
        >>> from interpreters import open_store
        >>> from persist_effects import StoreUnavailable, log
        >>> store = open_store("crash:")
        >>> store.fail("write", OSError(errno.ENOSPC))
        >>> try:
        ...     store.run(log.append("orders/1", "placed", 12))
        ... except StoreUnavailable as error:
        ...     print("No space left" in str(error))
        True
        >>> store.run(log.append("orders/1", "placed", 12)).seq
        1
        """
        self._files.fail(op, _with_its_words(error))

    def restart(self) -> "CrashStore":
        """Open again over what is left, after `crash` or `close`, as another process does.

        Returns:
            The store to go on with, with the same rows and blobs. This one, and all that runs on it, stays gone.

        Raises:
            InvalidRequest: If this one still goes on.
            CorruptStore: If what is left is damaged. That is a bug of ours.
        """
        effects, blobs = self._given
        return CrashStore(self._files.restarted(), effects=effects, blobs=blobs)

    def close(self) -> None:
        """Close it as any store. Where the plug is pulled: nothing, since its blobs go on with the next one."""
        if self._files.plug.pulled is None:
            super().close()

    def _powered(self, row: Callable[..., Any]) -> Callable[..., Any]:
        if is_program_row(row):
            # What it does, it asks for.
            return row
        if is_async_row(row):

            async def answer(request: Any) -> Any:
                self._files.plug.check()
                return await row(request)

            return answer
        return self._files.powered(row)


def _with_its_words(error: object) -> OSError:
    code = error.args[0] if isinstance(error, OSError) and error.args else None
    if not isinstance(error, OSError) or type(code) is not int:
        raise InvalidRequest(f"error is {describe(error)}: give an OSError with its number, such as OSError(errno.EIO)")
    return OSError(code, os.strerror(code)) if error.errno is None else error
