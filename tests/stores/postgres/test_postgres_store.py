"""The store on PostgreSQL: the whole conformance suite with reopening between steps, and what is its own."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alternating import Alternating
from fewer import FEWER
from hypothesis import given, settings
from hypothesis import strategies as st
from postgres_server import QUIET, new_schema, new_store_url, own_server
from psycopg import sql
from served_stores import until

from interpreters import Store, open_store
from interpreters.blobs.cid import cid_of
from interpreters.conformance import Capabilities, StoreConformance
from interpreters.stores.postgres import PostgresStore, courier
from interpreters.stores.postgres.batches import CHANGES_LIMIT
from interpreters.stores.postgres.installing import VERSIONS, Installation
from interpreters.stores.postgres.private_server import PrivateServer, binaries
from interpreters.stores.postgres.server import Connection
from interpreters.stores.statements import Statements
from persist_effects import (
    BlobNotFound,
    Draft,
    InvalidRequest,
    NewerFormat,
    StoreUnavailable,
    TooLarge,
    blob,
    codec,
    kv,
    log,
    requests,
    subscription,
    transact,
)
from persist_effects.requests import Append, Conflict, KvDelete, KvPut


class TestPostgresStore(StoreConformance):
    machine_settings = FEWER
    capabilities = Capabilities(reopen=True, order_lags=True, sql="postgresql")
    stores = 1

    def open_store(self) -> Store:
        return self._open(new_store_url(sync="interval"))

    def reopen(self, store: Store) -> Store:
        url = URLS[store.interpreter]
        store.close()
        return self._open(url)

    def _open(self, url: str) -> Store:
        interpreter = Alternating([open_store(url).interpreter for _ in range(self.stores)])
        URLS[interpreter] = url
        return Store(interpreter)


@pytest.mark.exploration
class TestTwoStoresInOneSchema(TestPostgresStore):
    """What one of them has acknowledged, the other shows at once; who waits at one is woken by the other."""

    stores = 2
    machine_settings = settings(FEWER, max_examples=10)


URLS: dict[Any, str] = {}


@pytest.fixture
def url() -> str:
    return new_store_url()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        yield opened


@contextmanager
def connected(store: Store) -> Iterator[psycopg.Connection[Any]]:
    """A connection to the schema of a store, as another program has one, which commits by itself."""
    interpreter = store.interpreter
    assert isinstance(interpreter, PostgresStore)
    with closing(interpreter.connect()) as connection:
        yield connection


# No reader passes a gap


HOLD = "SELECT given FROM append_event(%s, 0, 'held', NULL, 'made', 0, '\\xc0', NULL)"
"""An append that keeps its position to itself until its transaction ends."""


def held(connection: psycopg.Connection[Any]) -> int:
    found = connection.execute(HOLD, (0,)).fetchone()
    assert found is not None
    return int(found[0])


def test_readers_wait_before_a_position_that_a_transaction_holds_open_and_then_see_all_in_order(store):
    first = store.run(log.append("orders/1", "placed", 1))
    assert store.run(log.wait(first.position - 1, timeout=60)) == first.position
    with connected(store) as other, other.transaction():
        position = held(other)
        later = [store.run(log.append(f"orders/{number}", "placed", number)) for number in range(5)]
        assert all(event.position > position for event in later)
        # All that was acknowledged is there for whoever asks for it by name.
        assert store.run(log.read("orders/4")) == later[4:]
        assert store.run(log.last_seq("orders/1")) == 2
        page = store.run(log.page_all())
        assert (page.events, page.head) == ([first], first.position)
        assert store.run(log.wait(first.position, timeout=0)) == first.position
    assert store.run(log.wait(later[-1].position - 1, timeout=60)) == later[-1].position
    assert [event.position for event in store.run(log.read_all())] == [
        first.position,
        position,
        *(event.position for event in later),
    ]


def test_who_waits_for_the_order_is_told_which_transaction_holds_it_back(store):
    store.wait_for_order(60)
    with connected(store) as other:
        with other.transaction():
            held(other)
            event = store.run(log.append("orders/1", "placed", 1))
            pid = other.info.backend_pid
            with pytest.raises(
                StoreUnavailable, match=rf"holds it back, that of process {pid} of the server, for \d+ s"
            ):
                store.wait_for_order(0)
        store.wait_for_order(60)
        assert store.run(log.head()) == event.position
        other.execute("BEGIN")
        held(other)
        other.execute("PREPARE TRANSACTION 'it''s held'")
        event = store.run(log.append("orders/1", "placed", 2))
        with pytest.raises(StoreUnavailable, match=r"that which was prepared as 'it''s held', for \d+ s"):
            store.wait_for_order(0)
        other.execute("COMMIT PREPARED 'it''s held'")
        store.wait_for_order(60)
        assert store.run(log.head()) == event.position


def test_without_that_guard_a_follower_loses_an_event(store):
    """The mutant: readers that take what they see."""
    seen: list[str] = []

    def note(event):
        seen.append(event.stream)
        return []

    with connected(store) as other:
        other.execute("CREATE OR REPLACE FUNCTION settled() RETURNS bigint LANGUAGE sql STABLE RETURN 1::bigint << 62")
        with other.transaction():
            held(other)
            store.run(log.append("orders/1", "placed", 1))
            store.run(subscription.follow("all", "", note))
        store.run(subscription.follow("all", "", note))
    assert seen == ["orders/1"]
    assert [event.stream for event in store.run(log.read_all())] == ["held", "orders/1"]


def test_a_reading_transaction_and_one_of_another_kind_hold_nobody_back(store):
    with connected(store) as other, other.transaction():
        other.execute("SELECT count(*) FROM events")
        event = store.run(log.append("orders/1", "placed", 1))
        assert store.run(log.wait(event.position - 1, timeout=60)) == event.position
        assert store.run(log.read_all()) == [event]


def test_who_holds_readers_back_is_shown_by_a_view(store):
    with connected(store) as other, other.transaction():
        held(other)
        with connected(store) as asking:
            rows = asking.execute("SELECT pid, state, application FROM holding_back").fetchall()
        assert (other.info.backend_pid, "idle in transaction", "persist-effects") in rows


def test_of_those_that_hold_readers_back_the_one_that_wrote_first_is_shown_first(store):
    with (
        connected(store) as early,
        connected(store) as other,
        connected(store) as asking,
        early.transaction(),
        other.transaction(),
    ):
        early.execute("SELECT count(*) FROM events")
        for each in (other, early):
            each.execute("SELECT pg_current_xact_id()")
        ours = [other.info.backend_pid, early.info.backend_pid]
        rows = asking.execute("SELECT pid FROM holding_back").fetchall()
        assert [pid for (pid,) in rows if pid in ours] == ours


def test_a_wait_for_keys_is_not_told_past_a_change_in_flight(store):
    first = store.run(kv.put("a", 1))
    with connected(store) as other, other.transaction():
        held(other)
        second = store.run(kv.put("a", 2))
        assert store.run(kv.get("a")) == 2
        assert store.run(kv.wait(0, timeout=0)) < second
    assert store.run(kv.wait(first, timeout=60)) == second


EVENTS = int(os.environ.get("POSTGRES_GAP_EVENTS", "100000"))
WRITERS = 8
FOLLOWERS = 3
EACH = 25


@pytest.mark.exploration
def test_many_writers_of_new_streams_and_of_two_at_once_are_followed_without_a_gap(url):
    """Every follower sees every event exactly once, in order, and each stream's events in its own."""
    done = threading.Event()
    seen: list[list[tuple[int, str, int]]] = [[] for _ in range(FOLLOWERS)]
    open_store(url).close()
    with threads() as start_follower:
        for into in seen:
            start_follower(lambda into=into: collect(url, into, done))
        try:
            with threads() as start_writer:
                for writer in range(WRITERS):
                    start_writer(lambda writer=writer: write_in_pairs(url, writer))
        finally:
            done.set()
    for into in seen:
        assert len(into) == len(set(into)) == EVENTS // WRITERS // EACH * EACH * WRITERS
        assert into == sorted(into), "a follower saw an event below one that it had seen"
        assert into == seen[0]
    newest: dict[str, int] = {}
    for _, stream, seq in seen[0]:
        assert seq == newest.get(stream, 0) + 1, f"{stream}: expected {newest.get(stream, 0) + 1}, found {seq}"
        newest[stream] = seq


def write_in_pairs(url: str, writer: int) -> None:
    """Write to a stream that is new, and to one that all write to, in each transaction."""
    with open_store(url, sync="interval") as store:
        for number in range(EVENTS // WRITERS // EACH):
            writes = [
                Append(f"new/{writer}/{number}", (Draft("made", number),) * (EACH - 1)),
                Append(f"shared/{number % 5}", (Draft("made", number),)),
            ]
            store.run(transact(*(writes if number % 2 else reversed(writes))))


def collect(url: str, into: list[tuple[int, str, int]], done: threading.Event) -> None:
    """Read all events from the first on, until all are written and read."""
    with open_store(url) as store:
        after = 0
        while True:
            is_last = done.is_set()
            page = store.run(log.page_all(after=after, limit=1_000))
            into.extend((event.position, event.stream, event.seq) for event in page.events)
            if is_last and page.next == after:
                return
            after = page.next
            store.run(log.wait(after, timeout=0.05))


# Waiting


def test_a_wait_is_told_by_a_notification_of_another_store(url, monkeypatch):
    monkeypatch.setattr(courier, "LOOK_AGAIN_SECONDS", 3600.0)
    with open_store(url) as waiting, open_store(url) as writing, threads() as start:
        found: list[int] = []
        start(lambda: found.append(waiting.run(log.wait(0, "orders/", timeout=600))))
        until(lambda: is_listened_to(writing))
        writing.run(log.append("notes", "made", 1))
        event = writing.run(log.append("orders/1", "placed", 1))
    assert found == [event.position]


def test_a_lost_notification_is_made_up_for_by_a_look(url, monkeypatch):
    monkeypatch.setattr(courier, "LOOK_AGAIN_SECONDS", 0.05)
    with open_store(url) as waiting, open_store(url) as writing, threads() as start:
        monkeypatch.setattr(courier._Link, "notify", lambda self: None)
        found: list[int] = []
        start(lambda: found.append(waiting.run(log.wait(0, timeout=600))))
        until(lambda: is_listened_to(writing))
        event = writing.run(log.append("orders/1", "placed", 1))
    assert found == [event.position]


def test_a_store_for_which_nobody_waits_tells_nobody(url):
    with open_store(url) as store, connected(store) as listening:
        listening.execute("LISTEN persist_effects")
        store.run(log.append("orders/1", "placed", 1))
        store.run(kv.put("a", 1))
        assert store.interpreter._courier is None
        assert list(listening.notifies(timeout=0)) == []


@contextmanager
def threads():
    """Start threads, and wait for them at the end."""
    started: list[threading.Thread] = []
    failed: list[BaseException] = []

    def caught(run) -> None:
        try:
            run()
        except BaseException as error:
            failed.append(error)

    def start(run) -> None:
        started.append(threading.Thread(target=caught, args=(run,)))
        started[-1].start()

    try:
        yield start
    finally:
        for thread in started:
            thread.join()
    assert failed == []


def is_listened_to(store: Store) -> bool:
    with connected(store) as connection:
        rows = connection.execute(
            "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock' AND granted "
            "AND classid = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())"
        )
        return bool(rows.fetchall())


# What a schema is


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema": "pg_mine"}, "schema is 'pg_mine': give a name of up to 63 bytes that does not begin with pg_"),
        ({"schema": "x" * 64}, "give a name of up to 63 bytes"),
        ({"sync": "never"}, "sync is 'never': give one of commit, interval"),
        ({"mode": "x"}, "mode is 'x': give r to read only, or w"),
        ({"timeout_seconds": "0"}, "timeout_seconds is a float, 0.0: give a number from 0.1 to 86400"),
        ({"timeout_seconds": "long"}, "timeout_seconds is 'long' in the URL"),
        ({"connections": "0"}, "connections is 0: give an integer from 1"),
        ({"payload_limit_bytes": "0"}, "payload_limit_bytes is 0: give an integer from 1"),
        ({"clock": "now"}, "clock is a str, 'now': give a function, as a keyword of open_store"),
        ({"sslmode": "perhaps"}, 'invalid sslmode value: "perhaps"'),
        ({"color": "red"}, 'invalid URI query parameter: "color"'),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises((InvalidRequest, StoreUnavailable)) as caught:
        open_store(own_server().url(**{"schema": new_schema(), **options}))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("postgresql:app", "the URL of a store on PostgreSQL begins with postgresql://"),
        ("postgresql://a@b?schema=x&schema=y", "the option 'schema' of a store on PostgreSQL is given twice"),
        ("postgresql://me:secret@[::1/db", "the URL of the store cannot be read"),
        ("postgresql://me:secret@/db?host=/nowhere", "PostgreSQL on /nowhere, database db, schema persist_effects: no"),
    ],
)
def test_a_wrong_url_is_refused_and_its_password_is_not_shown(wrong, message):
    with pytest.raises((InvalidRequest, StoreUnavailable)) as caught:
        open_store(wrong)
    assert message in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_schema_of_something_else_is_refused_and_left_alone(url):
    with open_store(url) as store, connected(store) as connection:
        schema = new_schema()
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(sql.SQL("CREATE TABLE {}.meta (color text)").format(sql.Identifier(schema)))
        with pytest.raises(InvalidRequest, match="the schema is of something else: give the name of a new one"):
            open_store(own_server().url(schema))
        names = connection.execute("SELECT relname FROM pg_class WHERE relnamespace = %s::regnamespace", (schema,))
        assert names.fetchall() == [("meta",)]


def test_a_schema_may_have_any_name(url):
    odd = f'Orders "of" % {new_schema()}; -- ü'
    with open_store(own_server().url(odd)) as store:
        event = store.run(log.append("orders/1", "placed", 1))
        store.interpreter.grant_to_reader("pg_monitor")
    with open_store(own_server().url(odd), mode="r") as store:
        assert store.run(log.read_all()) == [event]


def test_a_newer_store_is_not_touched(url):
    with open_store(url) as store, connected(store) as connection:
        connection.execute("UPDATE meta SET version = 7")
        with pytest.raises(NewerFormat, match="format version 7, and this release reads up to 1"):
            open_store(url)


def test_a_store_is_made_for_writers_only(url):
    with pytest.raises(InvalidRequest, match="there is no store of this version: open it once without mode=r"):
        open_store(url, mode="r")


class _NextVersion(Statements):
    def __init__(self) -> None:
        self.texts = {"1_color": "ALTER TABLE meta ADD color text"}


def test_an_older_store_is_brought_up_to_date_by_one_of_those_that_open_it(url):
    with open_store(url) as store:
        event = store.run(log.append("orders/1", "placed", 1))
        server = store.interpreter._server
        versions = (*VERSIONS, _NextVersion())
        with threads() as start:
            for _ in range(4):
                start(lambda: Installation(server, versions).prepare(is_read_only=False))
        with connected(store) as connection:
            assert connection.execute("SELECT version, color FROM meta").fetchall() == [(2, None)]
        assert store.run(log.read_all()) == [event]


def test_stores_that_are_opened_for_the_first_time_at_once_find_one_schema(url):
    with threads() as start:
        for number in range(6):
            start(lambda number=number: open_and_append(url, number))
    with open_store(url) as store:
        assert sorted(event.data for event in store.run(log.read("shared"))) == list(range(6))


def open_and_append(url, number) -> None:
    with open_store(url) as store:
        store.run(log.append("shared", "made", number))


def test_a_database_that_is_not_utf8_is_refused(url):
    with open_store(url) as store, connected(store) as connection:
        name = new_schema()
        connection.execute(
            sql.SQL("CREATE DATABASE {} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0").format(sql.Identifier(name))
        )
    with pytest.raises(InvalidRequest, match="the database keeps text as LATIN1, and names are UTF-8"):
        open_store(own_server().url("app", database=name))


# Roles


def test_a_role_with_no_more_than_what_it_needs_writes_and_one_that_may_read_does_not(url):
    writer, reader = new_schema(), new_schema()
    with open_store(url) as store, connected(store) as connection:
        for name in (writer, reader):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        with pytest.raises(StoreUnavailable, match="let the owner call grant_to_writer or grant_to_reader for it"):
            open_store(url.replace("postgres@", f"{writer}@"))
        store.interpreter.grant_to_writer(writer)
        store.interpreter.grant_to_reader(reader)
    with open_store(url.replace("postgres@", f"{writer}@")) as store:
        event = store.run(log.append("orders/1", "placed", 1))
        store.run(log.append("orders/1", "placed", 2))
        store.run(log.truncate_through("orders/1", 1))
        revision = store.run(kv.put("a", 1))
        assert store.run(kv.put_expect("a", revision, 2)) > revision
        assert store.run(kv.delete("a")) is True
        assert store.run(log.wait(event.position, timeout=60)) > event.position
        store.interpreter.forget_deletions()
        with connected(store) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("ALTER TABLE events ADD color text")
    with open_store(url.replace("postgres@", f"{reader}@"), mode="r") as store:
        assert [event.data for event in store.run(log.read("orders/1", after=1))] == [2]
        with pytest.raises(InvalidRequest, match="was opened to read only: open it without mode=r to write"):
            store.run(log.append("orders/1", "placed", 3))
    with (
        open_store(url.replace("postgres@", f"{reader}@")) as store,
        pytest.raises(StoreUnavailable, match="let the owner call grant_to_writer"),
    ):
        store.run(log.append("orders/1", "placed", 3))


def test_a_wrong_password_is_said_in_words():
    server = own_server()
    role = new_schema()
    with open_store(server.url(new_schema())) as store, connected(store) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'right'").format(sql.Identifier(role)))
        hba = server.directory / "data" / "pg_hba.conf"
        before = hba.read_text()
        try:
            hba.write_text(f"local all {role} scram-sha-256\n{before}")
            connection.execute("SELECT pg_reload_conf()")
            with pytest.raises(StoreUnavailable, match="password authentication failed for user") as caught:
                until_refused(server.url("app", user=f"{role}:wrong"))
        finally:
            hba.write_text(before)
            connection.execute("SELECT pg_reload_conf()")
    assert "wrong" not in str(caught.value)


def until_refused(url: str) -> None:
    """Open a store until the server has read its new settings."""
    for _ in range(1_000):
        open_store(url).close()


# What is stored


def test_people_read_the_store_in_views(store):
    event = store.run(log.append("orders/1", "placed", {"total": 12, "paid": None, "by": b"\x01"}, at=1_500_000))
    revision = store.run(kv.put("a", [1, -2.5, "ü"]))
    with connected(store) as connection:
        rows = connection.execute("SELECT stream, seq, type, extract(epoch FROM at), data, meta, position FROM log")
        assert rows.fetchall() == [
            ("orders/1", 1, "placed", 1.5, {"total": 12, "paid": None, "by": "\\x01"}, None, event.position)
        ]
        assert connection.execute("SELECT key, value, revision FROM keys").fetchall() == [
            ("a", [1, -2.5, "ü"], revision)
        ]


@pytest.fixture(scope="module")
def sql_of_a_store() -> Iterator[psycopg.Connection[Any]]:
    with open_store(new_store_url()) as store, connected(store) as connection:
        yield connection


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=20)
    | st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), inner, max_size=20),
    max_leaves=30,
)  # fmt: skip


@given(value=PLAIN)
@settings(max_examples=200)
def test_msgpack_is_shown_as_the_same_value(sql_of_a_store, value):
    (shown,) = sql_of_a_store.execute("SELECT msgpack_to_jsonb(%s)::text", (codec.encode(value),)).fetchone()
    assert is_shown_as(json.loads(shown), value)


def is_shown_as(shown: Any, value: Any) -> bool:
    """Whether JSON shows a value: a number without a fraction is one of JSON's, whatever it was."""
    if isinstance(value, list):
        return len(shown) == len(value) and all(map(is_shown_as, shown, value))
    if isinstance(value, dict):
        return shown.keys() == value.keys() and all(is_shown_as(shown[key], part) for key, part in value.items())
    return float(shown) == value if isinstance(value, float) else shown == value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (float("inf"), '"Infinity"'),
        (float("-inf"), '"-Infinity"'),
        (float("nan"), '"NaN"'),
        (5e-324, "5e-324"),
        (b"\x00\xff", '"\\\\x00ff"'),
        ("a\0b", None),
        (["x" * 70_000], '["' + "x" * 70_000 + '"]'),
        ([b"y" * 300], '["\\\\x' + "79" * 300 + '"]'),
        (list(range(70_000))[-1:], "[69999]"),
    ],
)
def test_what_json_has_not_is_shown_as_text_or_not_at_all(sql_of_a_store, value, shown):
    (found,) = sql_of_a_store.execute("SELECT msgpack_to_jsonb(%s)::text", (codec.encode(value),)).fetchone()
    assert (found if shown is None or found is None else json.loads(found)) == (shown and json.loads(shown))


def test_noted_answers_are_kept_as_they_were_given(store):
    store.run(kv.put("gone", 1))
    writes = (
        Append("a", (Draft("made", 1), Draft("made", 2))),
        KvPut("b", 1),
        KvDelete("gone"),
        KvDelete("never"),
        Append("noted", (Draft("done", None, meta={"who": "me"}),)),
    )
    answers = store.run(requests_of(requests.Transact(writes, noting=True)))
    (event,) = store.run(log.read("noted"))
    assert event.meta["who"] == "me"
    assert event.meta["answers"] == [
        {**plain, "type": "Appended"} if isinstance(plain, dict) else plain
        for plain in (
            {"first_seq": 1, "last_seq": 2, "position": answers[0].position, "at": answers[0].at},
            *answers[1:4],
        )
    ]
    put = (*writes[:3], KvPut("noted", {"who": "me"}))
    again = store.run(requests_of(requests.Transact(put, noting=True)))
    assert store.run(kv.get("noted"))["answers"][1:] == again[1:3]
    assert store.run(kv.get("noted"))["answers"][0]["position"] == again[0].position


def requests_of(request):
    answer = yield request
    return answer


def test_blobs_are_kept_with_the_store_and_a_reader_puts_none(url):
    with open_store(url) as store:
        ref = store.run(blob.put(b"\0picture" * 1_000, "image/png"))
        assert store.run(blob.put(b"\0picture" * 1_000, "image/png")) == ref
    with open_store(url, mode="r") as store:
        assert store.run(blob.get(ref)) == b"\0picture" * 1_000
        assert store.run(blob.has(ref)) is True
        absent = cid_of(b"other")
        with pytest.raises(BlobNotFound):
            store.run(blob.get(absent))
        with pytest.raises(InvalidRequest, match="was opened to read only"):
            store.run(blob.put(b"other", "text/plain"))


def test_too_many_writes_for_one_transaction_are_refused_before_anything_is_written(store):
    with pytest.raises(InvalidRequest, match="takes 1048575 in one transaction: make several"):
        store.run(log.append_many("a", [Draft("made", None)] * (CHANGES_LIMIT + 1)))
    assert store.run(log.last_seq("a")) == 0


def test_a_payload_over_the_limit_is_refused_and_others_of_its_commit_stand(url):
    with open_store(url, payload_limit_bytes=100) as store:
        outcomes = store.interpreter.answer_all(
            [KvPut("a", "x" * 200), KvPut("b", 1), Append("s", (Draft("made", "y" * 200),)), KvPut("c", 2, expected=9)]
        )
        assert [type(getattr(one, "error", one.__class__)) for one in outcomes][::2] == [TooLarge, TooLarge]
        assert outcomes[3].value == Conflict("key", "c", 9, 0, 0)
        assert store.run(kv.keys("")) == ["b"]


def test_one_call_is_made_for_whatever_is_asked(store, monkeypatch):
    store.run(log.append("a", "made", 1))
    store.run(log.read("a"))
    asked: list[str] = []
    ask = Connection.ask

    def noted(self, query, parameters=()):
        asked.append(query)
        return ask(self, query, parameters)

    monkeypatch.setattr(Connection, "ask", noted)
    programs = [
        log.append("a", "made", 2),
        log.append_many("a", [Draft("made", 3), Draft("made", 4)]),
        transact(KvPut("k", 1), Append("b", (Draft("made", 1),), expected=0)),
        log.page_all(prefix="a", types=["made"]),
        kv.entry("k"),
        log.last_seq("a"),
    ]
    for program in programs:
        store.run(program)
    assert len(asked) == len(programs)
    store.run_many(log.append(f"many/{number}", "made", number) for number in range(500))
    assert len(asked) == len(programs) + 1


# Connections


def test_more_threads_than_connections_take_turns_and_a_lost_one_is_made_up_for(url):
    with open_store(url, connections=2, timeout_seconds=0.5) as store:
        store.run(log.append("a", "made", 1))
        pool = store.interpreter._server._pool
        with threads() as start:
            for _ in range(8):
                start(lambda: [store.run(log.last_seq("a")) for _ in range(50)])
        with pool.lent(), pool.lent():
            with pytest.raises(StoreUnavailable, match=r"all of the store's 2 connections were in use for 0.5 seconds"):
                store.run(log.last_seq("a"))
            # It was written all the same: whoever writes has a connection to itself.
            store.run(log.append("b", "made", 1))
        # As an interrupt leaves them, right after they were taken.
        for _ in range(5):
            pool._take().close()
            assert store.run(log.last_seq("a")) == 1
    with pytest.raises(StoreUnavailable, match="the store was closed: open it again"):
        pool._take()


# A restored store


@pytest.fixture
def other_server() -> Iterator[PrivateServer]:
    own_server()
    server = PrivateServer(settings=QUIET)
    yield server
    server.stop()


def test_a_store_that_was_restored_in_a_younger_cluster_goes_on_above_its_old_positions(store, url, other_server):
    with connected(store) as connection:
        for _ in range(3_000):
            connection.execute("SELECT pg_current_xact_id()")
        (schema,) = connection.execute("SELECT current_schema()").fetchone()
    before = [store.run(log.append("orders/1", "placed", number)) for number in range(3)]
    store.run(log.truncate_through("orders/1", 1))
    revision = store.run(kv.put("a", 1))
    dump = [tool("pg_dump"), "--schema", schema, "--host", str(own_server().directory), "--user", "postgres"]
    restore = [tool("psql"), "--quiet", "--set=ON_ERROR_STOP=1", "--host", str(other_server.directory)]
    dumped = subprocess.run(dump, capture_output=True, check=True).stdout
    subprocess.run([*restore, "--user", "postgres"], input=dumped, capture_output=True, check=True)
    with open_store(other_server.url(schema)) as restored:
        assert restored.run(log.read_all()) == before[1:]
        after = restored.run(log.append("orders/2", "placed", 1))
        assert after.position > before[-1].position
        assert restored.run(kv.put("a", 2)) > revision
        assert restored.run(log.wait(before[-1].position, timeout=60)) == after.position
        assert restored.run(log.read_all()) == [*before[1:], after]


def tool(name: str) -> str:
    directory = binaries()
    assert directory is not None
    return str(Path(directory) / name)
