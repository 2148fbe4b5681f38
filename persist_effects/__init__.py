"""One durable substrate for an application's subsystems, written as programs that yield effect requests.

Programs are made of the facets `log`, `kv` and `blob`, and of what is built on them: `projection`, `snapshot`,
`compaction`, `subscription`, `view`, `schema`. They never touch IO: an interpreter, such as a store that
``interpreters.open_store`` opens, answers their requests.
"""

from persist_effects import (
    blob,
    codec,
    compaction,
    errors,
    event,
    kv,
    log,
    machine,
    projection,
    requests,
    schema,
    snapshot,
    subscription,
    transaction,
    view,
)
from persist_effects.errors import (
    AlreadyUsed,
    BlobNotFound,
    CallerError,
    CorruptStore,
    InternalError,
    InvalidRequest,
    NotAProgram,
    NotARequest,
    PersistError,
    SchemaMismatch,
    StoreClosed,
    StoreUnavailable,
    TooLarge,
    Truncated,
    UncertainOutcome,
    UnhandledEffect,
)
from persist_effects.event import Draft, Event
from persist_effects.machine import Done, Effect, Handlers, Suspended, all_of, perform, run, start
from persist_effects.projection import State
from persist_effects.requests import Appended, BlobRef, Conflict, Entry, ExpectRevision, ExpectSeq, Page, Request
from persist_effects.schema import Schema
from persist_effects.subscription import Hub, follow, publish
from persist_effects.transaction import transact
from persist_effects.view import View

__all__ = [
    "AlreadyUsed",
    "Appended",
    "BlobNotFound",
    "BlobRef",
    "CallerError",
    "Conflict",
    "CorruptStore",
    "Done",
    "Draft",
    "Effect",
    "Entry",
    "Event",
    "ExpectRevision",
    "ExpectSeq",
    "Handlers",
    "Hub",
    "InternalError",
    "InvalidRequest",
    "NotAProgram",
    "NotARequest",
    "Page",
    "PersistError",
    "Request",
    "Schema",
    "SchemaMismatch",
    "State",
    "StoreClosed",
    "StoreUnavailable",
    "Suspended",
    "TooLarge",
    "Truncated",
    "UncertainOutcome",
    "UnhandledEffect",
    "View",
    "all_of",
    "blob",
    "codec",
    "compaction",
    "errors",
    "event",
    "follow",
    "kv",
    "log",
    "machine",
    "perform",
    "projection",
    "publish",
    "requests",
    "run",
    "schema",
    "snapshot",
    "start",
    "subscription",
    "transact",
    "transaction",
    "view",
]
