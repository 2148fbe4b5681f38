"""What goes wrong on the way to JetStream is met by the store; and one that does not meet it is found.

A row of the table plants one fault into the classes of the store, and names the scene that finds it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import scenes

from interpreters.nats.connection import Unanswered
from interpreters.stores.nats import commits, reader
from interpreters.stores.nats.barriers import Barriers
from interpreters.stores.nats.commits import NatsCommit, SubjectHead
from interpreters.stores.nats.following import Followed
from interpreters.stores.nats.jetstream import EXPECTED, EXPECTED_OF, MESSAGE_ID, Ack, JetStream
from interpreters.stores.nats.reader import Reader
from interpreters.stores.nats.sending import Sending
from interpreters.stores.nats.subjects import KEYS
from interpreters.stores.nats.writer import NatsWriter
from persist_effects import StoreUnavailable
from persist_effects.requests import KvPut, Page, ReadAll


@pytest.mark.parametrize("scene", scenes.SCENES, ids=lambda scene: scene.__name__)
def test_a_store_meets_what_befalls_it(scene):
    scene()


# Wrong stores


def nothing(*_: Any) -> None:
    """What a fault leaves out."""


def plant_no_barrier(patch):
    async def under(*_):
        return 0

    patch.setattr(Barriers, "under", under)


def plant_no_waiting_for_what_is_followed(patch):
    reach = Followed.reach
    patch.setattr(Followed, "reach", lambda self, _: reach(self, 0))


def plant_next_past_what_is_read(patch):
    read_all = Reader._read_all

    async def read_past(self, request):
        page = await read_all(self, request)
        return Page(page.events, page.head, page.head, page.hole)

    patch.setitem(reader._ANSWERS, ReadAll, read_past)


def plant_deletions_not_noted(patch):
    note = Reader._note_key
    patch.setattr(Reader, "_note_key", lambda self, message: note(self, message) if message.body else None)


def plant_revisions_that_count_within_a_commit(patch):
    kind_of = commits._kind_of
    patch.setattr(commits, "_kind_of", lambda write: "-" if isinstance(write, KvPut) else kind_of(write))


def plant_numbers_of_tombstones_lost(patch):
    head = NatsWriter._head

    def head_of(self, named, last):
        return SubjectHead() if named.kind == KEYS and last is not None and not last.body else head(self, named, last)

    patch.setattr(NatsWriter, "_head", head_of)


def plant_nothing_expected(patch):
    write_soon = JetStream.write_soon

    def write(self, messages, batch, done):
        write_soon(self, [without_expectation(message) for message in messages], batch, done)

    def without_expectation(message):
        if EXPECTED_OF in message.headers:
            return message
        return message._replace(headers={name: told for name, told in message.headers.items() if name != EXPECTED})

    patch.setattr(JetStream, "write_soon", write)


def plant_batches_as_single_messages(patch):
    write_soon = JetStream.write_soon

    def write(self, messages, batch, done):
        results = []

        def told(result):
            results.append(result)
            if len(results) == len(messages):
                failed = [result for result in results if not isinstance(result, Ack)]
                done(failed[0] if failed else results[-1])

        for message in messages:
            write_soon(self, [message], batch, told)

    patch.setattr(JetStream, "write_soon", write)


def plant_numbers_from_the_wrong_message(patch):
    answers = NatsCommit.answers
    patch.setattr(NatsCommit, "answers", lambda self, last, told=int: answers(self, last - 1 if last else 0, told))


def plant_a_new_id_for_each_try(patch):
    tried = Sending.tried

    async def tried_anew(self):
        self._own = self._ids()
        marked = self._marked._replace(headers={**self._marked.headers, MESSAGE_ID: self._own})
        self._messages[self._at] = self._marked = marked
        return await tried(self)

    patch.setattr(Sending, "tried", tried_anew)


def plant_whose_message_it_is_not_looked_at(patch):
    next_of = JetStream.next_of

    async def next_of_anybody(self, subject, number):
        found = await next_of(self, subject, number)
        return found and found._replace(id=None)

    patch.setattr(JetStream, "next_of", next_of_anybody)


def plant_no_answer_taken_for_not_sent(patch):
    begin = Unanswered.__init__
    patch.setattr(Unanswered, "__init__", lambda self, message, *, is_sent: begin(self, message, is_sent=False))


def plant_uncertain_outcomes_told_as_unavailable(patch):
    def give_up(_, reason):
        raise StoreUnavailable(f"nothing was written: {reason}")

    patch.setattr(Sending, "_give_up", give_up)


class Wrong(NamedTuple):
    """A store with a fault: how it is planted, the scene that finds it, and by what."""

    plant: Callable[[pytest.MonkeyPatch], None]
    scene: Callable[[], None]
    found_by: type[BaseException] = AssertionError


def without(holder: type, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    """Plants that a function does nothing."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(holder, name, nothing)

    return plant


WRONG_STORES: dict[str, Wrong] = {
    "takes what a server has that lags for all there is": Wrong(
        plant_no_barrier, scenes.a_server_that_has_come_no_further_is_asked_again
    ),
    "lists keys by an index that lags": Wrong(
        plant_no_waiting_for_what_is_followed,
        scenes.keys_are_listed_no_sooner_than_all_that_was_acknowledged_has_come_in,
    ),
    "lists streams by an index that lags": Wrong(
        plant_no_waiting_for_what_is_followed,
        scenes.streams_are_listed_no_sooner_than_all_that_was_acknowledged_has_come_in,
    ),
    "goes on past what a page has": Wrong(
        plant_next_past_what_is_read, scenes.all_is_read_page_by_page_and_nothing_passed_over
    ),
    "writes no mark of what is truncated": Wrong(
        without(NatsCommit, "_put_marks"), scenes.what_was_truncated_is_not_read_though_it_is_not_purged
    ),
    "takes in no mark of what others truncate": Wrong(
        without(Reader, "_note_mark"), scenes.what_was_truncated_is_not_read_though_it_is_not_purged
    ),
    "does not wake who waits when a key is deleted": Wrong(
        plant_deletions_not_noted, scenes.who_waits_for_a_key_is_told_that_it_is_deleted
    ),
    "gives the same revision again": Wrong(
        plant_revisions_that_count_within_a_commit, scenes.a_revision_never_comes_again_when_a_key_was_deleted
    ),
    "takes a key that was deleted for one that never was": Wrong(
        plant_numbers_of_tombstones_lost, scenes.a_key_that_another_store_has_deleted_is_put_again, StoreUnavailable
    ),
    "expects nothing of what it writes": Wrong(
        plant_nothing_expected, scenes.what_another_store_has_appended_is_counted_in
    ),
    "checks sequence numbers by what it knows itself": Wrong(
        without(NatsCommit, "_guard"), scenes.a_check_of_what_another_store_has_appended_to_meanwhile_is_a_conflict
    ),
    "checks revisions by what it knows itself": Wrong(
        without(NatsCommit, "_guard"), scenes.a_check_of_what_another_store_has_put_meanwhile_is_a_conflict
    ),
    "keeps to what it knows when it is refused": Wrong(
        without(NatsWriter, "_forget"), scenes.a_key_that_another_store_has_deleted_is_put_again, StoreUnavailable
    ),
    "writes a transaction message by message": Wrong(
        plant_batches_as_single_messages, scenes.a_transaction_that_another_store_comes_before_is_there_whole_and_once
    ),
    "counts numbers from the wrong message": Wrong(
        plant_numbers_from_the_wrong_message, scenes.answers_have_the_numbers_that_are_read
    ),
    "calls each try by a new id": Wrong(
        plant_a_new_id_for_each_try, scenes.an_append_whose_answer_is_lost_is_there_once
    ),
    "does not look who has written what is there": Wrong(
        plant_whose_message_it_is_not_looked_at,
        scenes.a_transaction_whose_answer_is_lost_is_there_once_and_known_by_its_mark,
    ),
    "takes what was not answered for not sent": Wrong(
        plant_no_answer_taken_for_not_sent, scenes.an_append_whose_answer_is_lost_is_there_once
    ),
    "says that nothing was written where it does not know": Wrong(
        plant_uncertain_outcomes_told_as_unavailable,
        scenes.an_append_of_which_no_answer_comes_is_uncertain,
        StoreUnavailable,
    ),
}


@pytest.mark.parametrize("fault", WRONG_STORES)
def test_a_store_is_found_that(fault, monkeypatch):
    wrong = WRONG_STORES[fault]
    wrong.plant(monkeypatch)
    with pytest.raises(wrong.found_by):
        wrong.scene()
