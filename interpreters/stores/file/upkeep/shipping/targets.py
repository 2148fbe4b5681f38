"""Where a store is shipped to: objects under flat names, put whole, got, listed and deleted.

Whatever has these four calls is a target: a directory, as here, or a bucket of some service. Names are of lower-case
letters, digits, dots and dashes, at most 200 of them. Shippers and restorers ask by the ``objects/*`` requests.
"""

import re
from collections.abc import Sequence
from typing import Protocol

from interpreters.disk import requests as disk
from persist_effects.errors import InvalidRequest, StoreUnavailable
from persist_effects.machine import Effect, Handlers, perform, run
from persist_effects.requests import Request

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,199}")
_LOCK = "LOCK"
_UNFINISHED = "UNFINISHED"


class BackupTarget(Protocol):
    """What a store is shipped to. Whatever a call raises is told, and tried again later."""

    def put(self, name: str, data: bytes) -> None:
        """Keep these bytes under a name, in the place of what had it: whole and for good, or, if it raises, not."""
        ...

    def get(self, name: str) -> bytes | None:
        """The bytes under a name; None where there are none."""
        ...

    def list(self, prefix: str) -> Sequence[str]:
        """The names that begin with this, sorted, those included that were just put."""
        ...

    def delete(self, name: str) -> None:
        """Forget a name; one that is not there is well."""
        ...


class PutObject(Request[None], frozen=True, tag="objects/put"):
    """As `BackupTarget.put`."""

    name: str
    data: bytes


class GetObject(Request[bytes | None], frozen=True, tag="objects/get"):
    """As `BackupTarget.get`."""

    name: str


class ListObjects(Request[list[str]], frozen=True, tag="objects/list"):
    """As `BackupTarget.list`."""

    prefix: str


class DeleteObject(Request[None], frozen=True, tag="objects/delete"):
    """As `BackupTarget.delete`."""

    name: str


class TargetTrouble(StoreUnavailable):
    """A target did not do what it was asked. What it lists is still true, so shipping goes on when it is well again."""


def objects_on(target: BackupTarget) -> Handlers:
    """The handler table of a target. What it raises becomes `TargetTrouble`, naming the call and the object.

    >>> from persist_effects import perform, run
    >>> run(perform(GetObject("identity")), objects_on(MemoryTarget())) is None
    True
    """

    def told(call: str, name: str, error: Exception) -> TargetTrouble:
        return TargetTrouble(f"the target could not {call} {name!r}: {error or type(error).__name__}")

    def put(request: PutObject) -> None:
        try:
            target.put(request.name, request.data)
        except Exception as error:
            raise told("put", request.name, error) from error

    def get(request: GetObject) -> bytes | None:
        try:
            return target.get(request.name)
        except Exception as error:
            raise told("get", request.name, error) from error

    def list_(request: ListObjects) -> list[str]:
        try:
            return list(target.list(request.prefix))
        except Exception as error:
            raise told("list", request.prefix, error) from error

    def delete(request: DeleteObject) -> None:
        try:
            target.delete(request.name)
        except Exception as error:
            raise told("delete", request.name, error) from error

    return {PutObject: put, GetObject: get, ListObjects: list_, DeleteObject: delete}


class MemoryTarget:
    """A target that is gone with its process, for tests, and to show what one is.

    >>> target = MemoryTarget()
    >>> target.put("b", b"2")
    >>> target.put("a", b"1")
    >>> target.list(""), target.get("a"), target.get("c")
    (['a', 'b'], b'1', None)
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def put(self, name: str, data: bytes) -> None:
        """Keep these bytes under a name."""
        self.objects[name] = data

    def get(self, name: str) -> bytes | None:
        """The bytes under a name."""
        return self.objects.get(name)

    def list(self, prefix: str) -> Sequence[str]:
        """The names that begin with this."""
        return sorted(name for name in self.objects if name.startswith(prefix))

    def delete(self, name: str) -> None:
        """Forget a name."""
        self.objects.pop(name, None)


class DirectoryTarget:
    """A target in the root of a disk: each object is a file of its name.

    A file is written under another name, synced and renamed, so that under its own name it is always whole.

    Args:
        handlers: Those of the disk, `interpreters.disk.requests`.

    >>> from interpreters.disk.crashing import CrashDisk
    >>> crash_disk = CrashDisk()
    >>> target = DirectoryTarget(crash_disk.handlers)
    >>> target.put("a", b"1")
    >>> target.list(""), crash_disk.image()
    (['a'], {'a': b'1'})
    """

    def __init__(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def hold(self, holder: str) -> None:
        """Be the only one that ships here, until the disk is closed. Raises `StoreUnavailable` where another is."""
        other = run(perform(disk.Lock(_LOCK, holder)), self._handlers)
        if other is not None:
            raise StoreUnavailable(f"{other} ships to this target already: one is enough; stop it, or give another")

    def put(self, name: str, data: bytes) -> None:
        """Keep these bytes under a name: on the disk when it returns."""
        run(_put(_checked(name), data), self._handlers)

    def get(self, name: str) -> bytes | None:
        """The bytes under a name."""
        return run(_get(_checked(name)), self._handlers)

    def list(self, prefix: str) -> Sequence[str]:
        """The names that begin with this: all that lies there, but for what is not finished."""
        names = run(perform(disk.List(".")), self._handlers)
        return [name for name in names if name.startswith(prefix) and name not in (_LOCK, _UNFINISHED)]

    def delete(self, name: str) -> None:
        """Forget a name. It may come back where the power fails at once."""
        run(_delete(_checked(name)), self._handlers)


def _checked(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise InvalidRequest(f"{name!r} is not the name of an object: give lower-case letters, digits, dots and dashes")
    return name


def _put(name: str, data: bytes) -> Effect[None]:
    # One that was killed may have left it. Nobody else writes here, see `DirectoryTarget.hold`.
    yield from _delete(_UNFINISHED)
    yield from perform(disk.Create(_UNFINISHED))
    yield from perform(disk.Write(_UNFINISHED, 0, data))
    yield from perform(disk.Sync(_UNFINISHED))
    yield from perform(disk.Rename(_UNFINISHED, name))
    yield from perform(disk.SyncDirectory("."))
    yield from perform(disk.LetGo(name))


def _get(name: str) -> Effect[bytes | None]:
    size_bytes = yield from perform(disk.Size(name))
    if size_bytes is None:
        return None
    try:
        data = yield from perform(disk.Read(name, 0, size_bytes))
        yield from perform(disk.LetGo(name))
    except FileNotFoundError:
        return None
    return data


def _delete(name: str) -> Effect[None]:
    if (yield from perform(disk.Size(name))) is not None:
        yield from perform(disk.Remove(name))
