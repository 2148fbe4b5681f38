"""Views: kept up to date by each publish, read in one read, and never stale where that is asked for."""

import msgspec
import pytest

from persist_effects import (
    Hub,
    InvalidRequest,
    SnapshotMismatch,
    State,
    Truncated,
    View,
    kv,
    log,
    publish,
    snapshot,
    start,
    view,
)
from persist_effects.requests import KvGet


class Balance(msgspec.Struct, frozen=True):
    total: int = 0
    counts: dict[int, int] = {}


def add(balance, event):
    counts = {**balance.counts, event.data: balance.counts.get(event.data, 0) + 1}
    return Balance(balance.total + event.data, counts)


def make_view(name="balance", stream="account/1"):
    return View(name, stream, add, Balance())


def plain_sum(name="sum", stream="account/1"):
    return View(name, stream, lambda total, event: total + event.data, 0)


def test_an_attached_view_is_refreshed_by_each_publish_to_its_stream(store):
    hub, balance = Hub(), make_view()
    view.attach(hub, balance)
    for amount in (5, 7, 5):
        store.run(publish(hub, "account/1", "deposited", amount))
        store.run(publish(hub, "account/2", "deposited", 100))
    assert store.run(view.peek(balance)) == Balance(17, {5: 2, 7: 1})
    assert store.run(view.value(balance)) == Balance(17, {5: 2, 7: 1})


def test_a_view_that_was_never_refreshed_shows_its_seed(store):
    store.run(log.append("account/1", "deposited", 5))
    assert store.run(view.peek(make_view())) == Balance()
    assert store.run(view.value(make_view())) == Balance(5, {5: 1})
    assert store.run(kv.keys()) == []


def test_a_plain_append_leaves_the_view_stale_until_its_value_is_asked_for_or_it_is_refreshed(store):
    hub, total = Hub(), plain_sum()
    view.attach(hub, total)
    store.run(publish(hub, "account/1", "deposited", 5))
    store.run(log.append("account/1", "deposited", 7))
    assert store.run(view.peek(total)) == 5
    assert store.run(view.value(total)) == 12
    assert store.run(view.peek(total)) == 5, "asking for the value writes nothing"
    assert store.run(view.refresh(total)) == State(12, 2)
    assert store.run(view.peek(total)) == 12


def test_a_publish_refreshes_over_plain_appends_before_it(store):
    hub, total = Hub(), plain_sum()
    store.run(log.append("account/1", "deposited", 5))
    view.attach(hub, total)
    store.run(publish(hub, "account/1", "deposited", 7))
    assert store.run(view.peek(total)) == 12


def test_peeking_is_one_read():
    step = start(view.peek(plain_sum()))
    assert step.request == KvGet("snapshot/view/sum")
    assert step.resume(None).value == 0


@pytest.mark.parametrize("read", [view.peek, view.value])
def test_what_a_caller_does_to_a_view_that_shows_its_seed_changes_no_later_one(store, read):
    told = View("told", "account/1", lambda told, event: {**told, "last": event.data}, {"items": []})
    shown = store.run(read(told))
    shown["items"].append("changed")
    shown["more"] = 1
    told.seed["items"].append("changed")
    assert store.run(view.peek(told)) == store.run(view.value(told)) == told.seed == {"items": []}
    store.run(log.append("account/1", "deposited", 5))
    assert store.run(view.refresh(told)) == State({"items": [], "last": 5}, 1)


def test_two_views_of_one_stream_are_kept_side_by_side(store):
    hub = Hub()
    total, count = plain_sum("sum"), View("count", "account/1", lambda count, event: count + 1, 0)
    view.attach(hub, total)
    view.attach(hub, count)
    for amount in (5, 7):
        store.run(publish(hub, "account/1", "deposited", amount))
    assert (store.run(view.peek(total)), store.run(view.peek(count))) == (12, 2)
    assert store.run(kv.keys()) == ["snapshot/view/count", "snapshot/view/sum"]


def test_one_view_name_for_two_streams_is_refused(store):
    store.run(view.refresh(plain_sum()))
    other = plain_sum(stream="account/2")
    for program in (view.refresh(other), view.value(other), view.peek(other)):
        with pytest.raises(InvalidRequest, match="is of stream 'account/1', and was asked for with 'account/2'"):
            store.run(program)


def test_one_view_name_for_two_streams_is_refused_where_it_is_attached():
    hub = Hub()
    view.attach(hub, plain_sum())
    view.attach(hub, plain_sum("other", "account/2"))
    with pytest.raises(
        InvalidRequest, match="view 'sum' is of stream 'account/1' on this hub, and was attached with 'account/2'"
    ):
        view.attach(hub, plain_sum(stream="account/2"))
    assert len(hub.callbacks("account/2")) == 1
    (callback,) = hub.callbacks("account/1")
    hub.unsubscribe("account/1", callback)
    view.attach(hub, plain_sum(stream="account/2"))


def test_a_view_of_a_higher_version_is_rebuilt_and_an_earlier_release_beside_it_is_right_and_changes_nothing(store):
    hub = Hub()
    old, new = plain_sum(), View("sum", "account/1", lambda total, event: total + 100 * event.data, 0, 2)
    view.attach(hub, old)
    store.run(publish(hub, "account/1", "deposited", 5))
    assert store.run(view.peek(new)) == store.run(view.value(new)) == 500
    assert store.run(view.refresh(new)) == State(500, 1)
    store.run(publish(hub, "account/1", "deposited", 7))
    assert store.run(view.peek(old)) == store.run(view.value(old)) == 12
    assert store.run(view.refresh(old)) == State(12, 2)
    kept = {"seq": 1, "value": 500, "stream": "account/1", "version": 2}
    assert store.run(kv.get("snapshot/view/sum")) == kept
    assert (store.run(view.peek(new)), store.run(view.value(new))) == (500, 1200)


def test_a_view_is_lifted_where_its_events_were_dropped_and_says_so_where_it_cannot_be(store):
    def add_up(total, event):
        return total + 100 * event.data

    store.run(log.append("account/1", "deposited", 5))
    store.run(view.refresh(plain_sum()))
    store.run(log.truncate_through("account/1", 1))
    store.run(log.append("account/1", "deposited", 7))
    bare = View("sum", "account/1", add_up, 0, version=2)
    for program in (view.peek(bare), view.value(bare), view.refresh(bare)):
        with pytest.raises(SnapshotMismatch, match="snapshot 'view/sum' of stream 'account/1' has version 1"):
            store.run(program)
    lifting = View("sum", "account/1", add_up, 0, version=2, lift={1: lambda total: 100 * total})
    assert store.run(view.peek(lifting)) == store.run(view.value(lifting)) == 1200
    assert store.run(view.refresh(lifting)) == State(1200, 2)
    assert store.run(view.peek(bare)) == 1200


def test_a_view_and_a_snapshot_of_one_name_do_not_meet(store):
    store.run(log.append("account/1", "deposited", 5))
    store.run(snapshot.write("sum", State(99, 1)))
    store.run(view.refresh(plain_sum()))
    assert store.run(snapshot.read("sum")) == State(99, 1)
    assert store.run(view.peek(plain_sum())) == 5


def test_a_view_goes_on_after_what_it_covers_was_dropped(store):
    total = plain_sum()
    store.run(log.append("account/1", "deposited", 5))
    store.run(view.refresh(total))
    store.run(log.truncate_through("account/1", 1))
    store.run(log.append("account/1", "deposited", 7))
    assert store.run(view.value(total)) == 12
    with pytest.raises(Truncated):
        store.run(view.value(plain_sum("late")))


def test_a_view_whose_state_no_longer_decodes_is_rebuilt(store):
    balance = make_view()
    store.run(log.append("account/1", "deposited", 5))
    store.run(view.refresh(balance))
    store.run(kv.put("snapshot/view/balance", {"seq": 1, "value": "an old shape", "stream": "account/1"}))
    assert store.run(view.peek(balance)) == Balance(5, {5: 1}), "neither what is kept nor the seed is the view"
    assert store.run(view.value(balance)) == Balance(5, {5: 1})
    store.run(view.refresh(balance))
    assert store.run(view.peek(balance)) == Balance(5, {5: 1})


def test_a_state_type_reaches_through_a_view(store):
    hub = Hub()
    seen = View("seen", "account/1", lambda seen, event: seen | {event.data}, set(), state_type=set[int])
    view.attach(hub, seen)
    for amount in (5, 7, 5):
        store.run(publish(hub, "account/1", "deposited", amount))
    assert store.run(view.peek(seen)) == store.run(view.value(seen)) == {5, 7}


def test_an_error_in_a_views_step_leaves_the_event_appended_and_the_view_as_it_was(store):
    hub = Hub()
    ratio = View("ratio", "a", lambda value, event: value / event.data, 8)
    view.attach(hub, ratio)
    store.run(publish(hub, "a", "divided", 2))
    with pytest.raises(ZeroDivisionError) as raised:
        store.run(publish(hub, "a", "divided", 0))
    assert raised.value.__notes__ == ["raised by a callback of 'a', after event 2 was appended"]
    assert store.run(view.peek(ratio)) == 4
    assert store.run(log.last_seq("a")) == 2


@pytest.mark.parametrize(("name", "stream"), [("", "a"), ("a", ""), ("a\x00", "a"), (7, "a")])
def test_a_view_whose_names_are_none_is_refused(name, stream):
    with pytest.raises(InvalidRequest, match=r"(view|stream) name"):
        View(name, stream, add, Balance())
