"""`Encrypted`: an interpreter around any store's, whose values lie there encrypted under keys of their subjects."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from interpreters.clocks import Clock, wall_clock
from interpreters.runtime.interpreter import (
    Interpreter,
    Submit,
    capabilities_of,
    check_interpreter,
    pass_through,
)
from interpreters.runtime.store import blobs_of
from interpreters.wrappers.encryption.blobs import EncryptedBlobs
from interpreters.wrappers.encryption.envelope import BLOB_PLACE, OVERHEAD_BYTES, library
from interpreters.wrappers.encryption.keys import FORMAT, Keys, Random
from interpreters.wrappers.encryption.masters import Master, Masters
from interpreters.wrappers.encryption.requests import (
    AdmitSubject,
    DeleteKeys,
    HoldsSeveral,
    MayHold,
    PutSubjectsBlob,
    RotateKey,
)
from interpreters.wrappers.encryption.ring import KeyRing
from interpreters.wrappers.encryption.sealing import Sealing, SubjectOf, SubjectOfEvent, between
from interpreters.wrappers.encryption.submitting import Submitting
from persist_effects.errors import InvalidRequest, describe
from persist_effects.machine import Handlers
from persist_effects.requests import (
    Append,
    BlobGet,
    BlobPut,
    BlobRef,
    KvEntries,
    KvGet,
    KvPut,
    Read,
    ReadAll,
    Request,
    Transact,
)

SEALED_KINDS = frozenset[type[Request[Any]]]({Append, KvPut, Transact})
OPENED_KINDS = frozenset[type[Request[Any]]]({Read, ReadAll, KvGet, KvEntries, BlobGet})
CHANGED_KINDS = SEALED_KINDS | OPENED_KINDS | {BlobPut}


class Encrypted:
    r"""An interpreter around an interpreter.

    Streams and keys, their names, the types and times of events, positions and revisions are those of the store inside.
    What it encrypts, under whose keys, and what is not encrypted, is said in `interpreters.wrappers.encryption`.

    Args:
        inner: The store's interpreter, which is closed with this one.
        keys: The interpreter of the key store, which is not.
        subject_of: About whom a stream or a key is, by its name: a pure function. None: it stands in the clear.
        subject_of_event: About whom one event is, by its stream's name and its draft, where the stream is about nobody.
        master: The master key under which the key store has its keys; of several, the newest first.
        blobs: The home of blobs inside; None: that of the store.
        clock: Gives the time at which a subject is forgotten.
        seconds: A clock that never goes back.
        random: Gives random bytes for keys and nonces. Only tests give another one.

    Raises:
        InvalidRequest: The keys would lie in the store itself, or an argument is wrong.

    >>> from interpreters.stores.memory import MemoryStore
    >>> from interpreters import Store
    >>> from persist_effects import kv
    >>> inner = MemoryStore()
    >>> encrypted = Encrypted(inner, MemoryStore(), subject_of=lambda name: name.partition(":")[0])
    >>> Store(encrypted).run(kv.put("ada:name", "Ada Lovelace"))
    1
    >>> Store(inner).run(kv.get("ada:name")).startswith(b"\xc1sealed")
    True
    """

    def __init__(
        self,
        inner: Interpreter,
        keys: Interpreter,
        *,
        subject_of: SubjectOf,
        subject_of_event: SubjectOfEvent | None = None,
        master: Master | Sequence[Master] | None = None,
        blobs: Interpreter | None = None,
        clock: Clock = wall_clock,
        seconds: Callable[[], float] = time.monotonic,
        random: Random = os.urandom,
    ) -> None:
        check_interpreter("what is encrypted", inner)
        check_interpreter("the key store", keys)
        _check_functions(subject_of, subject_of_event)
        _check_key_store(keys)
        # Told now, and not by the first value that is to be encrypted.
        library()
        self.inner = inner
        self._subject_of, self._has_shared = subject_of, subject_of_event is not None
        self._clock, self._random = clock, random
        programs = Keys(Masters(master), random)
        self._ring = KeyRing(programs, keys.handlers, seconds)
        _check_apart(inner, keys, self._ring.run(programs.check_format()))
        capabilities = capabilities_of(inner)
        limit_bytes = capabilities.payload_limit_bytes - OVERHEAD_BYTES
        if limit_bytes < 1:
            raise InvalidRequest(
                f"the store takes values of {capabilities.payload_limit_bytes} bytes, and an envelope alone takes "
                f"{OVERHEAD_BYTES}: open it with a higher payload_limit_bytes"
            )
        self._sealing = Sealing(subject_of, subject_of_event, limit_bytes, random)
        home = blobs_of(inner, capabilities) if blobs is None else blobs
        answers_for_blobs = inner if blobs is None and BlobPut in inner.handlers else home
        self._put_blob = answers_for_blobs.handlers[BlobPut]
        may_wait = getattr(keys, "blocking", True)
        self.blobs = EncryptedBlobs(home, self._ring.by_id, blocking=may_wait or getattr(home, "blocking", True))
        way = between(self._sealing, self._ring)
        self.handlers: Handlers = {
            kind: way.row(row) if kind in CHANGED_KINDS else row for kind, row in inner.handlers.items()
        }
        self.effects: Handlers = {
            DeleteKeys: self._delete_keys,
            RotateKey: lambda request: self._ring.rotate(request.subject),
            AdmitSubject: lambda request: self._ring.admit(request.subject),
            HoldsSeveral: self._holds_several,
            MayHold: self._may_hold,
            PutSubjectsBlob: self._put_subjects_blob,
        }
        """The rows for the programs of `interpreters.wrappers.encryption`: give them to the `Store`."""
        pass_through(self, inner, way)
        self.capabilities = msgspec.structs.replace(capabilities, payload_limit_bytes=limit_bytes)
        self.blocking = may_wait or getattr(inner, "blocking", True)
        self.quick = _quick_kinds(inner, keys)
        self._submitting: Submitting | None = None
        submit: Submit | None = getattr(inner, "submit", None)
        if submit is not None:
            self._submitting = Submitting(submit, self._sealing, self._ring)
            self.submit = self._submitting.submit

    def close(self) -> None:
        """Close the store inside, and let go of all keys. The key store stays open."""
        try:
            self.inner.close()
        finally:
            if self._submitting is not None:
                self._submitting.close()
            self._ring.let_go()

    def _delete_keys(self, request: DeleteKeys) -> int:
        gone = self._ring.forget(request.subject, self._clock())
        assert gone.forgotten_at is not None, "a subject without keys was forgotten"
        return gone.forgotten_at

    def _holds_several(self, request: HoldsSeveral) -> bool:
        return self._has_shared and (request.stream is None or self._subject_of(request.stream) is None)

    def _may_hold(self, request: MayHold) -> bool:
        subject = self._subject_of(request.stream)
        return self._has_shared if subject is None else subject == request.subject

    def _put_subjects_blob(self, request: PutSubjectsBlob) -> BlobRef:
        envelope = self._sealing.sealed_bytes(request.subject, request.data, BLOB_PLACE, self._ring)
        ref: BlobRef = self._put_blob(BlobPut(envelope, request.mime))
        return ref


def _check_functions(subject_of: object, subject_of_event: object) -> None:
    for name, function in (("subject_of", subject_of), ("subject_of_event", subject_of_event)):
        if not callable(function) and not (function is None and name == "subject_of_event"):
            raise InvalidRequest(
                f"{name} is {describe(function)}: give a function that returns a subject's name, or None"
            )


def _check_key_store(keys: Interpreter) -> None:
    if not capabilities_of(keys).transact:
        raise InvalidRequest(
            f"a {type(keys).__name__} does not answer Transact, by which keys are made and deleted: give another key "
            "store"
        )


def _check_apart(inner: Interpreter, keys: Interpreter, key_store_id: str) -> None:
    """Refuse keys that lie in the store itself, or that it has a copy of."""
    found = None if inner is keys else inner.handlers[KvGet](KvGet(FORMAT))
    if inner is keys or (found is not None and found.value.get("id") == key_store_id):
        raise InvalidRequest(
            "the keys lie in the store that they are to encrypt, and so in each of its backups, from which nothing "
            "could be forgotten: give another store for them, such as keys='file:var/keys'"
        )


def _quick_kinds(inner: Interpreter, keys: Interpreter) -> frozenset[type[Request[Any]]]:
    """What an event loop may ask: of what needs a key, only where it may ask the key store too."""
    quick: frozenset[type[Request[Any]]] = getattr(inner, "quick", frozenset())
    quick_keys: frozenset[type[Request[Any]]] = getattr(keys, "quick", frozenset())
    if KvGet not in quick_keys:
        return quick - CHANGED_KINDS
    return quick if Transact in quick_keys else quick - SEALED_KINDS
