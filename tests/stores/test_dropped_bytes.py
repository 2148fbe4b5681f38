"""What is left of a dropped stream in the bytes of every file that a store has, before a compaction and after it."""

import subprocess
import sys
from pathlib import Path
from random import Random

import nats_cluster
import postgres_server
import psycopg
import pytest
from served_stores import until
from server_processes import ServerProcess

from interpreters import migrating, open_store
from interpreters.stores.nats.jetstream import JetStream
from persist_effects import Draft, InvalidRequest, StoreLocked, StoreUnavailable, kv, log

SECRET = b"Kasimir"
"""Stands in each event of the dropped stream, and in what was overwritten and deleted; nowhere else."""

DROPPED = "customers/7"


def fill(store):
    """Two streams, mixed, one of which is dropped: short events, long ones, and several in one commit."""
    random = Random(7)
    for number in range(40):
        store.run(log.append("orders/1", "placed", number))
        store.run(log.append(DROPPED, "moved", {"name": SECRET.decode(), "n": number, "x": random.randbytes(number)}))
    for size_bytes in (5_000, 20_000, 300_000):
        store.run(log.append(DROPPED, "wrote", [SECRET, random.randbytes(size_bytes)], meta={"by": SECRET}))
    store.run(log.append_many(DROPPED, [Draft("moved", SECRET + bytes([number])) for number in range(100)]))
    store.run(kv.put("name", SECRET))
    store.run(kv.put("name", "other"))
    store.run(kv.put(f"of/{SECRET.decode()}", 1))
    store.run(kv.delete(f"of/{SECRET.decode()}"))


def drop(store):
    fill(store)
    store.run(log.drop(DROPPED))


def files_with_secret(place, but=()):
    """The files under a directory, by their paths in it, in whose bytes the secret is."""
    return [
        str(path.relative_to(place))
        for path in sorted(Path(place).rglob("*"))
        if path.is_file() and not any(part in but for part in path.parts) and SECRET in path.read_bytes()
    ]


def check_what_is_kept(store):
    """What was not dropped is there, and the dropped stream goes on behind its last number."""
    assert [event.data for event in store.run(log.read("orders/1"))] == list(range(40))
    assert store.run(log.read(DROPPED)) == []
    assert store.run(log.last_seq(DROPPED)) == 143
    assert store.run(kv.keys()) == ["name"]
    assert store.run(log.append(DROPPED, "came back", None)).seq == 144


def run_command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "interpreters.cli", *arguments], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_nothing_of_a_dropped_stream_is_left_in_any_file_after_the_command(tmp_path, kind):
    url = f"{kind}:{tmp_path / 'store'}"
    with open_store(url) as store:
        drop(store)
        before = store.run(log.head()), store.run(kv.put("name", "other"))
    assert files_with_secret(tmp_path) != []
    done = run_command("compact", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert files_with_secret(tmp_path) == []
    with open_store(url) as store:
        check_what_is_kept(store)
        assert store.run(log.head()) > before[0]
        assert store.run(kv.put("name", "other")) > before[1]


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_nothing_is_left_while_the_store_is_open_and_written(tmp_path, kind):
    """Of a file store also the newest segment is sealed, and copied."""
    with open_store(f"{kind}:{tmp_path / 'store'}") as store:
        drop(store)
        store.run(log.append_many("other", [Draft("counted", number) for number in range(2_000)]))
        told = []
        compacted = store.interpreter.compact(told=lambda done, total: told.append((done, total)))
        assert files_with_secret(tmp_path) == []
        assert compacted.bytes_before > 300_000 > compacted.bytes_after > 0
        assert told != []
        assert all(0 <= done <= total for done, total in told)
        check_what_is_kept(store)


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_where_told_raises_the_compaction_is_given_up_and_can_be_done_again(tmp_path, kind):
    """As where Ctrl-C comes."""

    class Pressed(BaseException):
        pass

    def press(done, total):
        raise Pressed

    with open_store(f"{kind}:{tmp_path / 'store'}") as store:
        drop(store)
        store.run(log.append_many("other", [Draft("counted", number) for number in range(2_000)]))
        with pytest.raises(Pressed):
            store.interpreter.compact(told=press)
        store.interpreter.compact()
        assert files_with_secret(tmp_path) == []
        check_what_is_kept(store)


def test_the_newest_revision_of_a_deletion_is_not_given_again_on_sqlite(tmp_path):
    with open_store(f"sqlite:{tmp_path / 'store'}") as store:
        store.run(kv.put("name", 1))
        store.run(kv.delete("name"))
        store.interpreter.compact()
        assert store.run(kv.wait(1, "name", 0)) == 2
        assert store.run(kv.put("name", 2)) == 3
    with open_store(f"sqlite:{tmp_path / 'store'}") as store:
        assert store.run(kv.put("name", 3)) == 4


def test_another_process_with_the_file_open_goes_on_and_nothing_is_left_on_sqlite(tmp_path):
    url = f"sqlite:{tmp_path / 'store'}"
    with open_store(url) as store, open_store(url) as other:
        drop(store)
        assert len(other.run(log.read("orders/1"))) == 40
        assert run_command("compact", url).returncode == 0
        assert files_with_secret(tmp_path) == []
        check_what_is_kept(other)
        assert store.run(log.last_seq(DROPPED)) == 144


def test_where_somebody_reads_what_the_file_was_before_it_is_said_and_done_again_on_sqlite(tmp_path):
    url = f"sqlite:{tmp_path / 'store'}"
    with open_store(url, busy_seconds=0.1) as store:
        fill(store)
        with store.interpreter._reading() as reading:
            reading.heads()
            store.run(log.drop(DROPPED))
            with pytest.raises(StoreUnavailable, match="end that program, and compact again"):
                store.interpreter.compact()
            check_what_is_kept(store)
        store.interpreter.compact()
        assert files_with_secret(tmp_path) == []


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_a_store_that_is_open_to_be_read_is_not_compacted(tmp_path, kind):
    url = f"{kind}:{tmp_path / 'store'}"
    with open_store(url) as store:
        drop(store)
    assert run_command("compact", f"{url}?mode=r").returncode == 2
    assert files_with_secret(tmp_path) != []


def test_a_file_store_that_another_process_writes_is_compacted_by_that_one_alone(tmp_path):
    with open_store(f"file:{tmp_path / 'store'}") as store:
        drop(store)
        done = run_command("compact", f"file:{tmp_path / 'store'}")
        assert done.returncode == 3
        with pytest.raises(StoreLocked):
            open_store(f"file:{tmp_path / 'store'}")


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_a_store_that_is_served_is_compacted_by_its_server(tmp_path, kind):
    server = ServerProcess(f"{kind}:{tmp_path / 'store'}", f"unix:{tmp_path / 'sock'}")
    with open_store(server.url) as store:
        drop(store)
        assert files_with_secret(tmp_path) != []
        done = run_command("compact", server.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert files_with_secret(tmp_path) == []
        check_what_is_kept(store)
    server.close()


def test_what_has_nothing_to_compact_says_so_through_its_server_too():
    with open_store("spawn:memory:") as store, pytest.raises(InvalidRequest, match="MemoryStore cannot be compacted"):
        store.interpreter.compact()


def test_who_may_only_read_has_nothing_compacted(tmp_path):
    for name in ("write", "read"):
        (tmp_path / name).write_text(f"{name} {'x' * 40}")
    server = ServerProcess(
        f"file:{tmp_path / 'store'}",
        f"unix:{tmp_path / 'sock'}",
        "--token-file",
        str(tmp_path / "write"),
        "--read-token-file",
        str(tmp_path / "read"),
    )
    with (
        open_store(f"{server.url}?token_file={tmp_path / 'read'}") as store,
        pytest.raises(InvalidRequest, match="this client's token is for reading only"),
    ):
        store.interpreter.compact()
    server.close()


def postgres_files():
    """Where the server's data is, but for its write-ahead log, once all of it is in files."""
    server = postgres_server.own_server()
    with psycopg.connect(server.url("unused").split("&schema")[0], autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    return files_with_secret(server.directory, but=("pg_wal",))


@pytest.mark.exploration
def test_nothing_of_a_dropped_stream_is_left_in_the_tables_of_postgresql():
    url = postgres_server.new_store_url()
    with open_store(url) as store:
        fill(store)
        with store.interpreter.connect() as connection:
            # As autovacuum does: what the planner keeps of values is of the values.
            connection.execute("ANALYZE")
        store.run(log.drop(DROPPED))
        assert postgres_files() != []
        done = run_command("compact", url)
        assert (done.returncode, done.stderr) == (0, "")
        assert "elsewhere: the write-ahead log of the server" in done.stdout
        assert postgres_files() == []
        check_what_is_kept(store)


def test_what_an_older_transaction_may_see_is_kept_and_told_on_postgresql():
    url = postgres_server.new_store_url()
    with open_store(url) as store:
        fill(store)
        with psycopg.connect(url.split("&schema")[0]) as older:
            older.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            older.execute("SELECT count(*) FROM pg_class").fetchall()
            store.run(log.drop(DROPPED))
            with pytest.raises(StoreUnavailable, match=r"\d+ rows that were deleted or overwritten are in the tables"):
                store.interpreter.compact()
        assert store.interpreter.compact().bytes_after < 300_000
        assert postgres_files() == []
        check_what_is_kept(store)


def test_a_table_that_is_in_use_is_waited_for_only_so_long_on_postgresql():
    url = postgres_server.new_store_url(timeout_seconds="0.3")
    with open_store(url) as store:
        drop(store)
        name = url.split("schema=")[1].split("&")[0]
        with psycopg.connect(url.split("&schema")[0]) as other:
            other.execute(f'SELECT count(*) FROM "{name}".events').fetchall()
            with pytest.raises(StoreUnavailable, match="another transaction holds what is asked for"):
                store.interpreter.compact()
        check_what_is_kept(store)


def test_who_does_not_own_the_tables_is_told_on_postgresql():
    url = postgres_server.new_store_url()
    role = f"writer_{postgres_server.new_schema()}"
    with open_store(url) as store:
        drop(store)
        with store.interpreter.connect() as connection:
            connection.execute(f'CREATE ROLE "{role}" LOGIN')
        store.interpreter.grant_to_writer(role)
        with (
            open_store(url.replace("postgres@", f"{role}@")) as other,
            pytest.raises(StoreUnavailable, match="only its owner may do so"),
        ):
            other.interpreter.compact()
        check_what_is_kept(store)


def test_on_nats_what_was_dropped_is_gone_once_the_store_was_copied_and_its_stream_removed():
    cluster = nats_cluster.own_cluster(1)
    place = cluster.directory
    with open_store(nats_cluster.new_store_url()) as old, open_store(nats_cluster.new_store_url()) as new:
        drop(old)
        own = old.interpreter._stream_name
        # What was dropped is in JetStream's files still, and for no compaction can be asked.
        assert any(own in Path(path).parts for path in files_with_secret(place))
        with pytest.raises(InvalidRequest, match=f"nats stream rm {own}"):
            old.interpreter.compact()
        migrating.migrate(old, new)
        connection = old.interpreter._connected()
        connection.call(JetStream(connection, own).api, f"STREAM.DELETE.{own}")
        # The server has put it aside, and deletes it while it does other things.
        aside = [streams / f".{own}" for streams in place.glob("*/jetstream/$G/streams")]
        assert aside
        until(lambda: not any(each.exists() for each in aside))
        assert files_with_secret(place) == []
        check_what_is_kept(new)
