"""The plain check of events finds whatever is wrong with a history that is right but for one thing."""

from random import Random

import pytest
from append_checks import append_problems
from msgspec import structs
from overlapping import Client

from interpreters.stores.memory import MemoryStore
from persist_effects import StoreUnavailable, UncertainOutcome, log, run
from persist_effects.requests import Answered, Append, Appended, Conflict, Failed, KvGet, Transact

SEED = 1


def history():
    """What some clients ask of a store in memory, and its events."""
    asked, random = [], Random(SEED)
    store = MemoryStore()
    clients = [Client(store.handlers, SEED, number, asked.append) for number in range(4)]
    for _ in range(400):
        random.choice(clients).ask_something()
    Client(store.handlers, SEED, len(clients), asked.append).look()
    return asked, run(log.read_all(), store.handlers)


def index_of(asked, is_wanted):
    """The first request that is wanted, of those that were answered as they asked."""
    return next(
        index
        for index, one in enumerate(asked)
        if isinstance(one.outcome, Answered) and not isinstance(one.outcome.value, Conflict) and is_wanted(one.request)
    )


def replaced(asked, index, outcome):
    return [*asked[:index], asked[index]._replace(outcome=outcome), *asked[index + 1 :]]


def is_long_append(request):
    return isinstance(request, Append) and len(request.events) == 3


def is_seen_transaction(asked):
    seen = {str(one.outcome.value.value) for one in asked if isinstance(one.request, KvGet) and one.outcome.value}
    return lambda request: isinstance(request, Transact) and str(getattr(request.writes[-1], "value", None)) in seen


def without_the_events_of(asked, events, is_wanted):
    """A request is uncertain, and its events are not there; all that comes later has moved up."""
    index = index_of(asked, is_wanted)
    writes = asked[index].request.writes if isinstance(asked[index].request, Transact) else [asked[index].request]
    values = [draft.data for write in writes if isinstance(write, Append) for draft in write.events]
    return replaced(asked, index, Failed(UncertainOutcome("gone"))), [
        event for event in events if event.data not in values
    ]


def an_event_is_lost(asked, events):
    return asked, events[:-1]


def an_event_is_lost_in_the_midst(asked, events):
    return asked, [*events[:3], *events[4:]]


def an_event_is_there_twice(asked, events):
    last = events[-1]
    return asked, [*events, structs.replace(last, seq=last.seq + 1, position=last.position + 1)]


def two_events_have_changed_places(asked, events):
    return asked, [*events[:3], events[4], events[3], *events[5:]]


def an_event_says_something_else(asked, events):
    return asked, [structs.replace(events[0], data=[99, 99, 99]), *events[1:]]


def an_answer_has_another_number(asked, events):
    index = index_of(asked, is_long_append)
    value = asked[index].outcome.value
    other = Appended(value.first_seq + 1, value.last_seq + 1, value.position, value.at)
    return replaced(asked, index, Answered(other)), events


def an_answer_has_another_position(asked, events):
    index = index_of(asked, is_long_append)
    other = structs.replace(asked[index].outcome.value, position=asked[index].outcome.value.position + 1)
    return replaced(asked, index, Answered(other)), events


def what_is_there_was_called_unavailable(asked, events):
    index = index_of(asked, is_long_append)
    return replaced(asked, index, Failed(StoreUnavailable("nothing was written"))), events


def what_is_there_was_called_a_conflict(asked, events):
    index = index_of(asked, is_long_append)
    return replaced(asked, index, Answered(Conflict("stream", "orders/1", 0, 1))), events


def half_of_an_append_is_there(asked, events):
    index = index_of(asked, is_long_append)
    last = asked[index].request.events[-1].data
    return replaced(asked, index, Failed(UncertainOutcome("gone"))), [event for event in events if event.data != last]


def half_of_a_transaction_is_there(asked, events):
    return without_the_events_of(asked, events, is_seen_transaction(asked))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (an_event_is_lost, "was acknowledged as"),
        (an_event_is_lost_in_the_midst, "comes after"),
        (an_event_is_there_twice, "is there 2 times"),
        (two_events_have_changed_places, "position "),
        (an_event_says_something_else, "was acknowledged as"),
        (an_answer_has_another_number, "was acknowledged as"),
        (an_answer_has_another_position, "was acknowledged as"),
        (what_is_there_was_called_unavailable, "was not written, it was said, and is there"),
        (what_is_there_was_called_a_conflict, "was not written, it was said, and is there"),
        (half_of_an_append_is_there, "there is only"),
        (half_of_a_transaction_is_there, "is there, and"),
    ],
    ids=lambda given: getattr(given, "__name__", "found"),
)
def test_it_is_found_that(wrong, words):
    asked, events = history()
    assert append_problems(asked, events) == []
    assert [problem for problem in append_problems(*wrong(asked, events)) if words in problem]
