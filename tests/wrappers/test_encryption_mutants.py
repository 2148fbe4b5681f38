"""Planted mistakes, each of which a test beside this one finds: what is shown here is that it would."""

from typing import Any

import pytest
import test_encryption as suite
import test_encryption_bad_input as bad
import test_encryption_keys as keys
import test_encryption_moving as moving
from encrypted_stores import Pair
from test_encryption_keys import drawn, late, memory

from interpreters.blobs import sweeping
from interpreters.explore import explore
from interpreters.wrappers.encryption import ring, sealing
from interpreters.wrappers.encryption.envelope import Key
from interpreters.wrappers.encryption.keys import IDS, Keys, Subject, place_of_subject
from interpreters.wrappers.encryption.masters import Masters
from persist_effects import kv, perform
from persist_effects.requests import KvPut, Transact

ADA = "customers/ada"


def fails(test: Any, *arguments: Any) -> bool:
    """Whether a test finds something wrong."""
    try:
        test(*arguments)
    except (Exception, pytest.fail.Exception):
        return True
    return False


def test_a_nonce_that_is_used_twice_is_found():
    once = suite.test_no_two_envelopes_are_alike_though_the_values_are
    assert not fails(once, Pair())
    assert fails(once, Pair(random=lambda size: b"7" * size))


def test_a_place_that_is_not_bound_is_found(monkeypatch):
    moved = [
        bad.test_an_envelope_that_was_moved_to_another_stream_is_refused,
        bad.test_an_envelope_that_was_moved_to_another_type_is_refused,
        bad.test_an_envelope_that_was_moved_to_another_key_is_refused,
        bad.test_a_meta_in_the_place_of_data_is_refused,
    ]
    assert not any(fails(test, bad.with_ada()) for test in moved)
    seal_all, open_all = Key.seal_all, Key.open_all
    monkeypatch.setattr(
        Key, "seal_all", lambda self, plains, nonces: seal_all(self, [(plain, b"") for plain, _ in plains], nonces)
    )
    monkeypatch.setattr(Key, "open_all", lambda self, envelopes, place: open_all(self, envelopes, b""))
    assert all(fails(test, bad.with_ada()) for test in moved)


def test_a_ring_that_keeps_keys_of_the_forgotten_is_found(monkeypatch):
    tests = [
        suite.test_a_forgotten_subject_is_erased_everywhere_and_the_others_read_on,
        suite.test_other_stores_of_this_process_forget_at_once,
        suite.test_nothing_new_is_written_about_a_forgotten_subject_until_it_is_admitted,
    ]
    assert not any(fails(test, Pair()) for test in tests)
    monkeypatch.setattr(ring, "let_go_everywhere", lambda: None)
    assert all(fails(test, Pair()) for test in tests)


def test_a_ring_that_never_looks_again_is_found(monkeypatch):
    noticed = suite.test_another_process_notices_within_the_time_that_is_stated
    assert not fails(noticed, Pair())
    monkeypatch.setattr(ring.KeyRing, "_fresh", lambda self: self._kept)
    assert fails(noticed, Pair())


def test_answers_that_are_lost_are_found(monkeypatch):
    tests = [
        (suite.test_answers_that_a_store_notes_come_back_in_the_meta_they_were_noted_in, {"by": "Ada"}),
        (suite.test_answers_that_a_store_notes_come_back_in_the_value_they_were_noted_in,),
    ]
    assert not any(fails(test, Pair(), *arguments) for test, *arguments in tests)

    def forgetful(holder: dict[str, Any], place: bytes, by_id: Any, found: Any) -> Any:
        return sealing._opened(holder["sealed"], place, by_id, found)

    monkeypatch.setattr(sealing, "_opened_dict", forgetful)
    assert all(fails(test, Pair(), *arguments) for test, *arguments in tests)


def test_a_sweep_that_takes_envelopes_for_plain_values_is_found(monkeypatch, tmp_path):
    refused = moving.test_a_sweep_that_cannot_read_what_is_reached_is_refused
    (tmp_path / "a").mkdir()
    assert not fails(refused, tmp_path / "a", "event")
    monkeypatch.setattr(sweeping, "is_sealed", lambda value: False)
    for only in ("event", "key"):
        (tmp_path / only).mkdir()
        assert fails(refused, tmp_path / only, only)


class _Careless(Keys):
    """Puts a first key without expecting that there is none."""

    def _add_key(self, subject: str, found: Subject, revision: int) -> Any:
        key_id, secret = self._random(16), self._random(32)
        record = Subject([*found.ids, key_id.hex()])
        writes = (KvPut(IDS + key_id.hex(), {"key": secret}), KvPut(place_of_subject(subject), record))
        yield from perform(Transact(writes))
        return Key(key_id, secret)


def test_two_processes_that_do_not_agree_on_a_first_key_are_found():
    def newest(kind: type[Keys], random: Any) -> Any:
        def program() -> Any:
            return (yield from kind(Masters(None), random()).newest(ADA)).id

        return program

    def they_agree(outcomes):
        first, second = (outcome.value for outcome in outcomes)
        assert first == second
        yield from kv.keys()

    for kind, verdict in ((Keys, "passed"), (_Careless, "failed")):
        report = explore([newest(kind, drawn), newest(kind, late)], memory, they_agree)
        assert report.verdict == verdict


def test_a_key_that_is_made_after_what_is_written_under_it_is_found(monkeypatch):
    nothing_is_written = keys.test_where_no_key_can_be_made_nothing_is_written
    assert not fails(nothing_is_written)

    def made_later(self: Keys, subject: str, found: Subject, revision: int) -> Any:
        return Key(self._random(16), self._random(32))
        yield

    monkeypatch.setattr(Keys, "_add_key", made_later)
    assert fails(nothing_is_written)


def test_a_forget_that_leaves_a_generation_behind_is_found(monkeypatch):
    rotated = suite.test_a_key_that_is_rotated_is_followed_by_another_and_the_log_stays
    assert not fails(rotated, Pair())

    def last_alone(self: Keys, subject: str, at: int) -> Any:
        found, revision = yield from self._known(subject)
        gone = Subject([], at)
        writes = (KvPut(IDS + found.ids[-1], {"forgotten_at": at}), KvPut(place_of_subject(subject), gone, revision))
        yield from perform(Transact(writes))
        return gone

    monkeypatch.setattr(Keys, "forget", last_alone)
    assert fails(rotated, Pair())
