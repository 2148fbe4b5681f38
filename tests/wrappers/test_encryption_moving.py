"""Encrypted stores that are exported, imported, migrated, backed up, verified and swept read on, or are refused."""

import io
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from encrypted_stores import customer_of

from interpreters import Store, jsonl, open_store
from interpreters.blobs.sweeping import sweep
from interpreters.migrating import migrate
from interpreters.stores.file.upkeep.operations import backup, verify
from interpreters.wrappers.encryption import forget, open_encrypted, put_blob
from persist_effects import InvalidRequest, blob, is_erased, kv, log, perform, snapshot
from persist_effects.requests import KvPut, Transact

ADA, BOB = "customers/ada", "customers/bob"


def opened(url: str, directory: Path) -> Store:
    return open_encrypted(url, keys=f"file:{directory}/keys?sync=os", subject_of=customer_of)


def filled(directory: Path) -> str:
    """The URL of a store with events, keys, a state, and noted answers, of which one subject is forgotten."""
    url = f"file:{directory}/store?sync=os"
    with opened(url, directory) as store:
        for stream, name in ((ADA, "Ada"), (BOB, "Bob"), ("prices", "tea")):
            store.run(log.append(stream, "named", name, meta={"by": name}))
            store.run(kv.put(f"{stream}/name", name))
        store.run(log.append_once(BOB, "once", "named", "Robert"))
        store.run(perform(Transact((KvPut("a", 1), KvPut(f"{BOB}/noted", {"name": "Bob"})), noting=True)))
        store.run(snapshot.checkpoint("names", BOB, lambda names, event: [*names, event.data], []))
        store.run(forget("customer/ada"))
    return url


def told(store: Store) -> dict[str, Any]:
    """What a store says through encryption. Times and positions aside."""
    events = store.run(log.read_all())
    return {
        "events": [(event.stream, event.seq, event.type, event.data, event.meta) for event in events],
        "keys": [(key, entry.value) for key, entry in store.run(kv.entries("customers/"))],
        "state": store.run(snapshot.read("names")).value,
    }


def test_a_store_that_was_exported_and_imported_reads_on(tmp_path):
    url = filled(tmp_path)
    with opened(url, tmp_path) as store:
        before = told(store)
    assert sum(is_erased(data) for *_, data, _ in before["events"]) == 1
    lines = io.BytesIO()
    with open_store(url) as raw:
        jsonl.export(raw, lines)
    assert b"Bob" not in lines.getvalue()
    with open_store(f"file:{tmp_path}/copy?sync=os") as raw:
        jsonl.import_(raw, io.BytesIO(lines.getvalue()))
    with opened(f"file:{tmp_path}/copy?sync=os", tmp_path) as store:
        assert told(store) == before


def test_a_store_that_was_migrated_reads_on_in_a_store_of_another_kind(tmp_path):
    url = filled(tmp_path)
    with opened(url, tmp_path) as store:
        before = told(store)
    target = f"sqlite:{tmp_path}/copy.db?sync=os"
    with open_store(url) as source, open_store(target) as copy:
        migrate(source, copy)
    with opened(target, tmp_path) as store:
        assert told(store) == before


def test_a_backup_of_before_a_subject_was_forgotten_reads_on_without_it(tmp_path):
    url = f"file:{tmp_path}/store?sync=os"
    with opened(url, tmp_path) as store:
        store.run(log.append(ADA, "named", "Ada"))
        store.run(log.append(BOB, "named", "Bob"))
    assert verify(tmp_path / "store").is_sound
    backup(tmp_path / "store", tmp_path / "backup")
    with opened(url, tmp_path) as store:
        store.run(forget("customer/ada"))
    with opened(f"file:{tmp_path}/backup?sync=os", tmp_path) as store:
        ada, bob = store.run(log.read_all())
        assert is_erased(ada)
        assert bob.data == "Bob"


def test_an_export_through_encryption_is_in_the_clear_and_is_imported_anew(tmp_path):
    with opened(f"file:{tmp_path}/store?sync=os", tmp_path) as store:
        store.run(log.append(BOB, "named", "Bob"))
        lines = io.BytesIO()
        jsonl.export(store, lines)
    assert b"Bob" in lines.getvalue()
    with opened(f"file:{tmp_path}/copy?sync=os", tmp_path) as store:
        jsonl.import_(store, io.BytesIO(lines.getvalue()))
        assert store.run(log.read(BOB))[0].data == "Bob"
    with open_store(f"file:{tmp_path}/copy?sync=os") as raw:
        assert raw.run(log.read(BOB))[0].data.startswith(b"\xc1sealed")


# Blobs


def with_blobs(directory: Path) -> tuple[str, dict[str, Any]]:
    url = f"file:{directory}/store?sync=os"
    with opened(url, directory) as store:
        refs = {
            name: store.run(blob.put(name.encode())) for name in ("in an event", "in a meta", "in a key", "nowhere")
        }
        refs["of ada"] = store.run(put_blob("customer/ada", b"a photo"))
        store.run(log.append(BOB, "photographed", refs["in an event"], meta={"also": refs["in a meta"].cid}))
        store.run(kv.put(f"{BOB}/photo", refs["in a key"]))
        store.run(log.append(ADA, "photographed", refs["of ada"]))
    return url, refs


def test_a_sweep_through_encryption_keeps_what_is_reached(tmp_path):
    url, refs = with_blobs(tmp_path)
    with opened(url, tmp_path) as store:
        assert sweep(store.blobs, store, grace=timedelta(0)).dropped == [refs["nowhere"].cid]
        store.run(forget("customer/ada"))
        assert sweep(store.blobs, store, grace=timedelta(0)).dropped == [refs["of ada"].cid]


@pytest.mark.parametrize("only", ["event", "key"])
def test_a_sweep_that_cannot_read_what_is_reached_is_refused(tmp_path, only):
    url, _ = with_blobs(tmp_path)
    with open_store(url) as raw:
        if only == "key":
            raw.run(log.truncate_through(ADA, 1))
            raw.run(log.truncate_through(BOB, 1))
        where = f"event 1 of stream '{BOB}'" if only == "event" else f"value of key '{BOB}/photo'"
        with pytest.raises(
            InvalidRequest, match=f"{where} is encrypted, .* Sweep through the store that open_encrypted"
        ):
            sweep(raw.blobs, raw, grace=timedelta(0))
        assert len(list(raw.blobs.kept())) == 5
