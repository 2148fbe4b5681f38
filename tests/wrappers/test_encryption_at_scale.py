"""Ten thousand subjects on disk, of which a hundred are forgotten: nothing of these is left in any file."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from encrypted_stores import both, bytes_of, customer_of, names_of

from interpreters import Store, open_store
from interpreters.wrappers.encryption import forget, open_encrypted
from interpreters.wrappers.encryption.keys import IDS, place_of_subject
from persist_effects import Draft, is_erased, kv, log, projection

pytestmark = pytest.mark.exploration

SUBJECTS = 10_000
FORGOTTEN = range(0, SUBJECTS, 100)


def stream(number: int) -> str:
    return f"customers/{number}"


def secret(number: int) -> str:
    return f"the secret of number {number:05}."


def fill(store: Store) -> None:
    def registered(number: int) -> Any:
        yield from log.append_many(
            stream(number),
            [
                Draft("registered", {"name": secret(number)}),
                Draft("moved", {"name": secret(number)}, meta={"a": number}),
            ],
        )
        yield from kv.put(f"{stream(number)}/name", secret(number))

    for start in range(0, SUBJECTS, 1_000):
        store.run_many(registered(number) for number in range(start, start + 1_000))


def key_of(keys: Store, number: int) -> bytes:
    (key_id,) = keys.run(kv.get(place_of_subject(f"customer/{number}")))["ids"]
    secret_key: bytes = keys.run(kv.get(IDS + key_id))["key"]
    return secret_key


def compact_file(keys: str) -> None:
    with open_store(keys) as store:
        store.interpreter.compact()  # type: ignore[attr-defined]


def compact_sqlite(keys: str) -> None:
    path = keys.removeprefix("sqlite:").partition("?")[0]
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.parametrize(("scheme", "compact"), [("file", compact_file), ("sqlite", compact_sqlite)])
def test_of_a_hundred_forgotten_among_ten_thousand_nothing_is_left(scheme, compact, tmp_path: Path):
    with both(scheme, tmp_path) as (url, keys_url):
        with open_store(keys_url) as keys, open_encrypted(url, keys=keys, subject_of=customer_of) as store:
            fill(store)
            gone = [key_of(keys, number) for number in FORGOTTEN]
            kept = [key_of(keys, number + 1) for number in FORGOTTEN]
            for number in FORGOTTEN:
                store.run(forget(f"customer/{number}"))
        before = bytes_of(tmp_path / "keys")
        # A log has held the keys, and is compacted for that. SQLite may have written over them, or not.
        assert all(key in before for key in gone) or scheme == "sqlite"
        compact(keys_url)
        files = bytes_of(tmp_path)
        assert b"the secret of" not in files
        assert not any(key in files for key in gone)
        assert all(key in files for key in kept)
        with open_encrypted(url, keys=keys_url, subject_of=customer_of) as store:
            for number in range(0, SUBJECTS, 50):
                events = store.run(log.read(stream(number)))
                name = store.run(kv.get(f"{stream(number)}/name"))
                if number in FORGOTTEN:
                    assert [is_erased(event) for event in events] == [True, True]
                    assert is_erased(name)
                else:
                    assert [event.data["name"] for event in events] == [secret(number)] * 2
                    assert (name, events[1].meta) == (secret(number), {"a": number})
            names = store.run(projection.project_all("customers/", names_of(), [])).value
            left = sorted(secret(number) for number in range(SUBJECTS) if number not in FORGOTTEN)
            assert sorted(names) == sorted(left * 2)
