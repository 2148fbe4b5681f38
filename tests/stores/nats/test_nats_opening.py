"""Opening a store on NATS: who may, what is refused in words, and what it says of itself."""

import base64
import json
import os
import re
from contextlib import closing

import nkeys
import pytest
from certificates import self_signed
from nats_cluster import new_store_url, own_cluster
from served_stores import until
from typer.testing import CliRunner

from interpreters import open_store
from interpreters.cli import app
from interpreters.nats.access import Access
from interpreters.nats.connection import NatsConnection
from interpreters.nats.private_cluster import PrivateCluster, unused_host
from interpreters.stores.nats.making import check_version
from persist_effects import CorruptStore, Draft, InvalidRequest, StoreUnavailable, TooLarge, kv, log, transact
from persist_effects.requests import KvPut

# What a user needs, as docs/how-to/nats.md has it.
LEAST = """
permissions {
  publish {
    allow: [
      "least.>"
      "$JS.API.STREAM.INFO.least", "$JS.API.STREAM.MSG.GET.least", "$JS.API.STREAM.PURGE.least"
      "$JS.API.DIRECT.GET.least"
      "$JS.API.CONSUMER.CREATE.least.>", "$JS.API.CONSUMER.DELETE.least.>", "$JS.FC.least.>"
    ]
  }
  subscribe { allow: ["_INBOX_least.>"] }
}
"""
KEYS = nkeys.from_seed(b"SUAEL6GG2L2HIF7DUGZJGMRUFKXELGGYFMHF76UO2AYBG3K4YLWR3FKC2Q")
ACCOUNTS = f"""
accounts {{
  APPS {{
    jetstream: enabled
    users: [
      {{ user: app, password: "s/cret" }}
      {{ user: least, password: little, {LEAST} }}
      {{ user: reader, password: little, permissions {{ publish: ["$JS.API.STREAM.INFO.least"] }} }}
      {{ nkey: {KEYS.public_key.decode()} }}
    ]
  }}
  BARE {{ users: [{{ user: bare, password: "s/cret" }}] }}
}}
"""


@pytest.fixture(scope="module")
def guarded():
    """A server that knows who may do what, and takes few messages at once, and small ones."""
    with PrivateCluster(settings=ACCOUNTS, batch_messages=50, payload_bytes=100_000) as cluster:
        yield cluster


def url_on(cluster: PrivateCluster, login: str, name: str, **options: object) -> str:
    return cluster.url(name, **options).replace("nats://", f"nats://{login}@")


# Who may


def test_a_user_is_known_by_a_password_in_the_url_or_in_a_file(guarded, tmp_path):
    (tmp_path / "password").write_text("s/cret\n")
    with open_store(url_on(guarded, "app:s%2Fcret", "known")) as store:
        assert store.run(kv.put("a", 1)) >= 1
    with open_store(guarded.url("known", user="app", password_file=tmp_path / "password")) as store:
        assert store.run(kv.get("a")) == 1


def test_a_user_is_known_by_an_nkey(guarded, tmp_path):
    (tmp_path / "seed").write_bytes(KEYS.seed)
    with open_store(guarded.url("known-by-key", nkey_file=tmp_path / "seed")) as store:
        assert store.run(kv.put("a", 1)) >= 1


def test_whoever_is_not_known_is_refused_at_once_and_no_message_has_the_password(guarded):
    with pytest.raises(InvalidRequest, match="the servers do not know this user") as caught:
        open_store(url_on(guarded, "app:wrong-s3cret", "known"))
    assert "wrong-s3cret" not in str(caught.value)


def test_a_token_is_another_way(tmp_path):
    (tmp_path / "token").write_text("t0ken")
    with PrivateCluster(settings='authorization { token: "t0ken" }') as cluster:
        with open_store(cluster.url("app", token_file=tmp_path / "token")) as store:
            assert store.run(kv.put("a", 1)) >= 1
        with pytest.raises(InvalidRequest, match="do not know this user"):
            open_store(cluster.url("app", token="another"))


def claims_signed(key: nkeys.KeyPair, subject: bytes, name: str, **more: object) -> str:
    """A token of NATS: what a key says of a subject."""

    def encoded(value: object) -> bytes:
        return base64.urlsafe_b64encode(value if isinstance(value, bytes) else json.dumps(value).encode()).rstrip(b"=")

    claims = {
        "jti": name, "iat": 1_700_000_000, "iss": key.public_key.decode(), "name": name, "sub": subject.decode(),
        "nats": {"version": 2, **more},
    }  # fmt: skip
    told = encoded({"typ": "JWT", "alg": "ed25519-nkey"}) + b"." + encoded(claims)
    return (told + b"." + encoded(key.sign(told))).decode()


def key_of(kind: int) -> nkeys.KeyPair:
    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), kind))


def test_a_user_is_known_by_credentials_that_an_operator_stands_for(tmp_path):
    operator, system, account = map(key_of, (nkeys.PREFIX_BYTE_OPERATOR, *[nkeys.PREFIX_BYTE_ACCOUNT] * 2))
    user = key_of(nkeys.PREFIX_BYTE_USER)
    unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1)
    stored = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
    accounts = {
        key.public_key.decode(): claims_signed(
            operator, key.public_key, name, type="account", limits={**unlimited, "wildcards": True, **more}
        )
        for key, name, more in ((system, "SYS", {}), (account, "APPS", stored))
    }
    preloaded = "\n".join(f"{key}: {told}" for key, told in accounts.items())
    settings = (
        f"operator: {claims_signed(operator, operator.public_key, 'owner', type='operator')}\n"
        f"system_account: {system.public_key.decode()}\nresolver: MEMORY\nresolver_preload {{ {preloaded} }}"
    )
    told = claims_signed(account, user.public_key, "app", type="user", subs=-1, data=-1, payload=-1)
    (tmp_path / "app.creds").write_text(
        f"-----BEGIN NATS USER JWT-----\n{told}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )
    with PrivateCluster(settings=settings) as cluster:
        with open_store(cluster.url("app", credentials_file=tmp_path / "app.creds")) as store:
            assert store.run(kv.put("a", 1)) >= 1
        with pytest.raises(InvalidRequest, match="do not know this user"):
            open_store(cluster.url("app"))


def test_over_tls_each_side_shows_a_certificate(tmp_path):
    host = unused_host()
    cert, key = self_signed(tmp_path, host)
    settings = f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{cert}", verify: true }}'
    with PrivateCluster(settings=settings, host=host) as cluster:
        with open_store(cluster.url("app", ca_file=cert, cert_file=cert, key_file=key)) as store:
            assert store.run(kv.put("a", 1)) >= 1
        with pytest.raises(StoreUnavailable, match=r"no server answers.*certificate verify failed"):
            open_store(cluster.url("app", tls="yes", timeout=0.5))


def test_a_user_who_may_do_only_what_a_store_needs_can_do_all_that_a_store_does(guarded):
    open_store(url_on(guarded, "app:s%2Fcret", "least")).close()
    options = {"batch_messages": 50, "inbox_prefix": "_INBOX_least"}
    with open_store(url_on(guarded, "least:little", "least", **options)) as store:
        store.run(log.append_many("orders/1", [Draft("placed", number) for number in range(20)]))
        store.run(log.truncate_through("orders/1", 10))
        assert [event.seq for event in store.run(log.read("orders/1"))] == list(range(11, 21))
        assert [event.seq for event in store.run(log.read_all())] == list(range(11, 21))
        assert list(store.run(log.streams())) == ["orders/1"]
        store.run(transact(KvPut("a", 1), KvPut("b", 2)))
        assert dict(store.run(kv.entries())).keys() == {"a", "b"}
        assert list(store.run(kv.keys())) == ["a", "b"]
        store.run(log.advance(1_000, 1_000))
        assert store.run(kv.put("a", 3)) > 1_000


def test_what_a_user_may_not_do_is_told_at_once_and_by_its_subject(guarded):
    open_store(url_on(guarded, "app:s%2Fcret", "least")).close()
    with pytest.raises(
        StoreUnavailable, match=r"this user may not do it: permissions violation for publish to .*least"
    ):
        open_store(url_on(guarded, "reader:little", "least2"))


def test_an_account_without_jetstream_has_no_store(guarded):
    with pytest.raises(StoreUnavailable, match="JetStream is not enabled there, or not for this account"):
        open_store(url_on(guarded, "bare:s%2Fcret", "app"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nats:", "the URL of a store on NATS is nats://HOST:PORT"),
        ("nats://host:4222", "the URL of a store on NATS is nats://HOST:PORT"),
        ("nats://host:4222/a/b", "the URL of a store on NATS is nats://HOST:PORT"),
        ("nats://host:4222/a b", "the URL of a store on NATS is nats://HOST:PORT"),
        ("nats://host:4222/app?replicas=two", "replicas"),
        ("nats://host:4222/app?replicas=0", "replicas is 0: give"),
        ("nats://host:4222/app?replicas=3&replicas=3", "given twice"),
        ("nats://host:4222/app?timeout=0", "give a number of seconds from 0.1 to 86400"),
        ("nats://host:4222/app?batch_messages=1", "batch_messages is 1: give"),
        ("nats://host:4222/app?path=x", "has no option 'path'"),
        ("nats://host:4222/app?prefix=a..b", "prefix is 'a..b': give tokens"),
        ("nats://host:4222/app?monitor=host:8222", "monitor is 'host:8222': give http://HOST:PORT"),
        ("nats://a:b@host:4222/app?user=c", "in an option: leave one of them out"),
        ("nats://host:4222/app?user=a&password=b&token=c", "a client is known in one way"),
        ("nats://host:4222/app?password=b", "a password is given, and no user"),
        ("nats://host:4222/app?nkey_file=nowhere", "there is no such file"),
        ("nats://host:4222/app?key_file=nowhere", "key_file is given, and cert_file is not"),
        ("nats://host:4222/app?tls=no&ca_file=nowhere", "ca_file is given, and tls=no"),
        ("nats://host:4222/app?tls=maybe", "give yes or no"),
    ],
)
def test_what_names_no_store_or_no_option_is_refused(url, message):
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        open_store(url)


def test_where_nobody_listens_one_error_says_so():
    with pytest.raises(StoreUnavailable, match=r"127.0.0.1:1: no server answers \(.*\): start one, or give another"):
        open_store("nats://127.0.0.1:1/app?timeout=0.3")


def test_servers_that_write_no_batches_are_too_old():
    check_version((2, 12, "2.12.0"), "here")
    with pytest.raises(
        StoreUnavailable, match=r"here is nats-server 2\.11\.9, which cannot .*: use 2\.12 or a newer one"
    ):
        check_version((2, 11, "2.11.9"), "here")


# The stream


def made_stream(name: str, **settings: object) -> str:
    """The URL of a store, whose stream somebody has made already."""
    cluster = own_cluster(1)
    with closing(NatsConnection([f"{cluster.host}:4222"], Access(), 5.0).open()) as connection:
        config = {"name": name, "subjects": [f"{name}.>"], "storage": "file", "retention": "limits", **settings}
        answer = connection.call(connection.ask, f"$JS.API.STREAM.CREATE.{name}", json.dumps(config).encode())
        assert b'"error"' not in answer, answer
    return cluster.url(name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_msgs": 10}, "max_msgs=10, which would drop the oldest messages: set it to -1"),
        ({"max_bytes": 10_000}, "max_bytes=10000, which would drop the oldest messages"),
        ({"max_age": 10**12}, "max_age=1000000000000, which would drop what is old"),
        ({"max_msgs_per_subject": 1}, "max_msgs_per_subject=1, which would cut streams"),
        ({"retention": "interest"}, "retention=interest, and a store needs limits"),
        ({"storage": "memory"}, "storage=memory, and a store needs file"),
        ({"subjects": ["other.>"]}, "with the subjects ['other.>'], and a store has ['stream"),
    ],
)
def test_a_stream_that_would_lose_something_is_refused_in_words(settings, message, request):
    name = f"stream{abs(hash(request.node.name)) % 10**9}"
    with pytest.raises(InvalidRequest, match=re.escape(message)):
        open_store(made_stream(name, **settings))


def test_a_stream_that_lacks_only_what_can_be_added_is_made_what_a_store_needs():
    with open_store(made_stream("added")) as store:
        first, second = store.run(transact(KvPut("a", 1), KvPut("b", 2)))
        assert second == first + 1


def test_more_replicas_than_servers_are_refused_and_so_is_another_number_than_there_is():
    with pytest.raises(StoreUnavailable, match=r"too few servers for the stream 'many'.*give fewer replicas"):
        open_store(own_cluster(1).url("many", replicas=3))
    url = new_store_url()
    open_store(url).close()
    with pytest.raises(InvalidRequest, match="is kept on 1 servers, and replicas=3 was given: leave it out, or change"):
        open_store(url.replace("replicas=1", "replicas=3"))


def test_stores_of_one_name_under_two_prefixes_know_nothing_of_each_other():
    cluster = own_cluster(1)
    with (
        open_store(cluster.url("app", prefix="acme.one")) as one,
        open_store(cluster.url("app", prefix="acme.two")) as two,
    ):
        one.run(log.append("orders/1", "placed", 1))
        assert list(two.run(log.read_all())) == []
        assert [event.stream for event in one.run(log.read_all())] == ["orders/1"]


def test_a_message_that_is_none_of_the_stores_is_damage_and_is_named():
    url = new_store_url()
    name = url.rpartition("/")[2].partition("?")[0]
    with open_store(url) as store:
        store.run(log.append("orders/1", "placed", 1))
        cluster = own_cluster(1)
        with closing(NatsConnection([f"{cluster.host}:4222"], Access(), 5.0).open()) as connection:
            connection.call(connection.ask, f"{name}.e.orders.1", b"what is this")
        for reading in (
            log.read("orders/1"),
            log.read_all(),
            log.last_seq("orders/1"),
            log.append("orders/1", "paid", 1),
        ):
            with pytest.raises(CorruptStore, match=rf"message \d+ of {name}\.e\.orders\.1 is none of a store's"):
                list(store.run(reading))


# Limits


def test_a_value_that_no_message_of_these_servers_holds_is_refused_before_anything_is_written(guarded):
    with open_store(url_on(guarded, "app:s%2Fcret", "limits")) as store:
        limit = store.capabilities.payload_limit_bytes
        assert limit == 100_000 - 8192
        with pytest.raises(TooLarge, match=f"the store's limit is {limit}"):
            store.run(kv.put("large", "x" * limit))
        half = "x" * (limit // 2)
        with pytest.raises(TooLarge, match="the data and meta of an event of stream 'orders/1', in one message"):
            store.run(log.append("orders/1", "placed", half, meta={"also": half}))
        assert store.run(kv.put("large", "x" * (limit - 8))) >= 1
        assert [event.data for event in store.run(log.read_all())] == []
    with pytest.raises(
        InvalidRequest, match=f"payload_limit_bytes is {limit + 1}, and a message of these servers holds"
    ):
        open_store(url_on(guarded, "app:s%2Fcret", "limits", payload_limit_bytes=limit + 1))


def test_more_at_once_than_the_servers_take_is_refused_and_what_waits_for_one_stream_goes_by_smaller_batches(guarded):
    with open_store(url_on(guarded, "app:s%2Fcret", "batches", batch_messages=1_000)) as store:
        with pytest.raises(InvalidRequest, match="give their limit as batch_messages"):
            store.run(log.append_many("orders/1", [Draft("placed", 1)] * 60))
        assert [event.seq for event in store.run_many(log.append("orders/1", "placed", 1) for _ in range(200))] == list(
            range(1, 201)
        )
        with pytest.raises(InvalidRequest, match="an append of 501 events is over the limit of 500: make several"):
            store.run(log.append_many("orders/1", [Draft("placed", 1)] * 501))


@pytest.mark.parametrize(
    "awkward", ["é" * 256, "%" * 512, ".>*" * 170, " /" * 256, '{}\\"' * 128, "/" * 512, "a/" * 256]
)
def test_a_name_of_512_awkward_bytes_is_a_name_like_any_other(awkward):
    with open_store(new_store_url()) as store:
        store.run(log.append(awkward, "placed", 1))
        store.run(kv.put(awkward, 1))
        assert [event.stream for event in store.run(log.read_all())] == [awkward]
        assert list(store.run(log.streams())) == [awkward]
        assert list(store.run(kv.keys())) == [awkward]
        assert [event.seq for event in store.run(log.read(awkward))] == [1]


def test_where_the_clock_jumps_only_the_times_of_events_do():
    times = iter([10**15, 10**15 - 10**12, 2 * 10**15, 5])
    with open_store(new_store_url(), clock=lambda: next(times)) as store:
        for _ in range(4):
            store.run(log.append("orders/1", "placed", 1))
        events = list(store.run(log.read("orders/1")))
        assert [event.seq for event in events] == [1, 2, 3, 4]
        assert [event.at for event in events] == [10**15, 10**15 - 10**12, 2 * 10**15, 5]


# What it says of itself


def test_what_an_acknowledgement_means_is_told_as_the_servers_tell_it():
    with PrivateCluster(syncs_always=True) as cluster:
        monitor = f"http://{cluster.host}:8222"
        with open_store(cluster.url("app", monitor=monitor)) as store:
            assert store.capabilities.durability == "commit"
            assert store.interpreter.health()["acknowledged"] == "a majority of n0 has it on its disk"
        with open_store(cluster.url("app")) as store:
            assert store.capabilities.durability == "os"
            assert "that is not known" in store.interpreter.health()["acknowledged"]
        with open_store(cluster.url("app", monitor="http://127.0.0.1:1")) as store:
            assert store.capabilities.durability == "os"
            assert "of n0 it is not known whether it syncs" in store.interpreter.health()["acknowledged"]
    lazy = own_cluster(3)
    monitors = ",".join(f"http://{lazy.host}:{8222 + node}" for node in range(3))
    with open_store(new_store_url(3, monitor=monitors)) as store:
        assert store.capabilities.durability == "os"
        assert "n0, n1, n2 writes to its disk every now and then" in store.interpreter.health()["acknowledged"]


def test_the_health_of_a_store_is_asked_by_a_command():
    told = CliRunner().invoke(app, ["health", new_store_url(), "--json"])
    assert told.exit_code == 0
    found = json.loads(told.stdout)
    assert (found["durability"], found["server n0"], found["replicas"]) == ("os", "leads", 1)


def test_a_store_heals_whose_user_the_servers_did_not_know_for_a_while():
    with PrivateCluster(settings='authorization { user: app, password: "first" }') as cluster:
        settings = cluster.directory / "0.conf"
        known = settings.read_text()
        with open_store(cluster.url("app", user="app", password="first", timeout=0.5)) as store:
            store.run(kv.put("a", 1))
            cluster.end()
            settings.write_text(known.replace('"first"', '"second"'))
            cluster.start()
            with pytest.raises(StoreUnavailable):
                store.run(kv.get("a"))
            cluster.end()
            settings.write_text(known)
            cluster.start()
            until(lambda: is_answered(store))


def test_a_store_heals_whose_connection_the_server_has_ended_for_good():
    with PrivateCluster() as cluster, open_store(cluster.url("app", timeout=0.5)) as store:
        store.run(kv.put("a", 1))
        own = store.interpreter._connection
        # As for what is over its limits, after which nats-py does not connect again.
        own.call(own.client._process_err, "'maximum payload violation'")
        until(lambda: is_answered(store))


def is_answered(store) -> bool:
    try:
        return store.run(kv.get("a")) == 1
    except StoreUnavailable:
        return False
