"""Journals of flows as files: what they hold, that they come back, and how code that no longer fits is found."""

import json

import msgspec
import pytest

from interpreters import open_store
from interpreters.flow_testing import FlowTest, export_histories, flow_test, replay_histories
from persist_effects import InvalidRequest, flow, kv, log
from persist_effects.errors import Nondeterministic, NoSuchFlow
from persist_effects.flow.defining import Flows

DAY = 86_400


class Receipt(msgspec.Struct, frozen=True):
    order: str
    cents: int


class OutOfStock(Exception):
    """An error of the test's own."""


def charge(order: str, cents: int) -> Receipt: ...


def ship(order: str) -> None: ...


def reserve(order: str) -> None: ...


def order(order_id: str, cents: int):
    yield from log.append("orders", "placed", order_id)
    receipt = yield from flow.call(charge, order_id, cents)
    assert type(receipt) is Receipt
    yield from flow.sleep(DAY)
    yield from flow.call(ship, order_id)


def with_all_kinds(order_id: str):
    """A flow whose journal has each kind of step."""
    yield from kv.put("color", b"\x00\xff")
    yield from flow.call(charge, order_id, 2**60)
    with pytest.raises(OutOfStock, match="no tea") as raised:
        yield from flow.call(reserve, order_id)
    assert isinstance(raised.value.__cause__, KeyError)
    if (yield from flow.patched("look again")):
        assert (yield from kv.get("color")) == b"\x00\xff"
    at = yield from flow.now()
    number = yield from flow.random()
    assert number < 1 < at
    assert (yield from flow.signal("go", timeout=DAY)) == {"$a": float("inf"), "b": [1.5, None]}
    yield from flow.all_of(flow.sleep(1), flow.child(nap, flow_id="a child"))
    try:
        yield from flow.signal("never")
    finally:
        yield from flow.call(ship, order_id)
        yield from flow.signal("never")


def nap():
    yield from flow.sleep(1)


def out_of_stock(order: str) -> None:
    raise OutOfStock("no tea") from KeyError("tea")


FAKES = {charge: lambda order, cents: Receipt(order, cents), ship: None, reserve: out_of_stock}


@pytest.fixture
def begun():
    with flow_test([order], fakes=FAKES) as test:
        test.start(order, "o/1", "o/1", 500)
        test.start(order, "o/2", "o/2", 700)
        test.advance(10)
        yield test


def run_with_all_kinds() -> FlowTest:
    test = flow_test([with_all_kinds, nap], fakes=FAKES, errors=[OutOfStock])
    test.start(with_all_kinds, "k-1", "o-1")
    test.run_until_idle()
    test.signal("k-1", "go", {"$a": float("inf"), "b": [1.5, None]})
    test.advance(2)
    test.cancel("k-1")
    test.run_until_idle()
    return test


def test_a_file_reads_as_what_the_flow_did(begun, tmp_path):
    assert export_histories(begun.store, tmp_path, flow_ids=["o/1"]) == 1
    (path,) = tmp_path.iterdir()
    assert path.name == "o%2F1.jsonl"
    at = begun.now - 10_000_000
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [
        {"format": "persist-effects flow", "version": 1, "flow_id": "o/1"},
        {
            "begun": {"flow": "order", "version": 1, "args": ["o/1", 500], "began": at},
            "seq": 1,
            "at": at,
        },
        {
            "steps": 1,
            "seq": 2,
            "at": at,
            "noted": {
                "answers": [{"type": "Appended", "first_seq": 1, "last_seq": 1, "position": 3, "at": at}],
            },
        },
        {
            "step": "1",
            "asked": {
                "op": "persist/append",
                "stream": "orders",
                "events": [{"type": "placed", "data": "o/1", "at": None, "meta": None}],
                "expected": None,
            },
            "noted": True,
        },
        {"steps": 2, "seq": 3, "at": at},
        {"step": "2", "asked": ["flow/call", "charge", ["o/1", 500]], "answer": {"order": "o/1", "cents": 500}},
        {"step": "3", "asked": ["persist/sleep"], "began": at + DAY * 1_000_000},
        {"end": {"entries": 3, "steps": 3}},
    ]


def test_histories_of_flows_that_go_on_fit_the_code_that_made_them(begun, tmp_path):
    begun.start(order, "o-3", "o-3", 900)
    begun.run_until_idle()
    assert export_histories(begun.store, tmp_path / "made" / "here") == 3
    assert replay_histories([order], tmp_path / "made" / "here") == 3


def test_each_kind_of_step_comes_back_to_the_byte(tmp_path):
    with run_with_all_kinds() as test:
        events = test.store.run(log.read("flow/k-1"))
        steps = [
            step
            for event in events[1:]
            if event.type == "steps"
            for step in flow.journal.decode_steps(event.data["steps"])
        ]
        assert {step.kind for step in steps} == set(range(6))
        export_histories(test.store, tmp_path)
        from interpreters.flow_testing.histories import _read

        flow_id, back = _read(tmp_path / "k-1.jsonl")
    assert flow_id == "k-1"
    for event, again in zip([each for each in events if each.type != "claimed"], back, strict=True):
        assert {name: value for name, value in event.data.items() if name != "token"} == again.data
        assert (event.stream, event.seq, event.type, event.at, event.meta) == (
            again.stream,
            again.seq,
            again.type,
            again.at,
            again.meta,
        )


def test_a_history_with_each_kind_of_step_fits(tmp_path):
    with run_with_all_kinds() as test:
        export_histories(test.store, tmp_path)
    assert replay_histories([with_all_kinds, nap], tmp_path, errors=[OutOfStock]) == 1


def test_nothing_is_performed_where_histories_are_replayed(begun, tmp_path):
    export_histories(begun.store, tmp_path)
    calls, head = begun.calls, begun.store.run(log.head())
    replay_histories([order], tmp_path)
    assert (begun.calls, begun.store.run(log.head())) == (calls, head)


def test_an_export_writes_the_files_of_the_same_flows_anew(begun, tmp_path):
    export_histories(begun.store, tmp_path)
    begun.advance(DAY)
    begun.start(order, "o-3", "o-3", 900)
    begun.run_until_idle()
    assert export_histories(begun.store, tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o%2F1.jsonl", "o%2F2.jsonl", "o-3.jsonl"]


@pytest.mark.parametrize(("flow_id", "told"), [("o/1", "it has ended"), ("o-9", "it was never begun")])
def test_a_flow_that_does_not_go_on_has_no_history(begun, tmp_path, flow_id, told):
    begun.advance(DAY)
    begun.start(order, "o-3", "o-3", 900)
    with pytest.raises(NoSuchFlow, match=told):
        export_histories(begun.store, tmp_path / "none", flow_ids=["o-3", flow_id])
    assert not (tmp_path / "none").exists()


def test_ids_that_are_long_and_begin_alike_have_files_of_their_own(tmp_path):
    with flow_test([nap]) as test:
        for end in "ab":
            test.start(nap, "ü" * 149 + end)
        test.run_until_idle()
        assert export_histories(test.store, tmp_path) == 2
    assert replay_histories([nap], tmp_path) == 2


# Code that has changed


def changed(function, name="order", version=1):
    return flow.defined(name=name, version=version)(function)


def reordered(order_id: str, cents: int):
    yield from flow.call(charge, order_id, cents)
    yield from log.append("orders", "placed", order_id)


def cheaper(order_id: str, cents: int):
    yield from log.append("orders", "placed", order_id)
    yield from flow.call(charge, order_id, cents - 1)


def without_charge(order_id: str, cents: int):
    yield from log.append("orders", "placed", order_id)
    yield from flow.sleep(DAY)


def shorter(order_id: str, cents: int):
    yield from log.append("orders", "placed", order_id)


CHANGED = {
    reordered: ("step 1, persist/append", "step 1, call(charge, 'o/1', 500)"),
    cheaper: ("step 2, call(charge, 'o/1', 500)", "step 2, call(charge, 'o/1', 499)"),
    without_charge: ("step 2, call(charge, 'o/1', 500)", "step 2, sleep(…)"),
    shorter: ("step 2, call(charge, 'o/1', 500)", "the flow has ended: it returned None"),
}


@pytest.mark.parametrize("code", CHANGED, ids=lambda code: code.__name__)
def test_a_flow_that_has_changed_is_found_with_what_was_expected_and_what_it_does(begun, tmp_path, code):
    expected, actual = CHANGED[code]
    export_histories(begun.store, tmp_path)
    with pytest.raises(ExceptionGroup) as raised:
        replay_histories([changed(code)], tmp_path)
    assert str(raised.value).startswith(
        f"of 2 histories in {str(tmp_path)!r}, 2 do not fit the code: o%2F1.jsonl, o%2F2.jsonl"
    )
    first, second = raised.value.exceptions
    assert isinstance(first, Nondeterministic)
    assert (first.flow_id, second.flow_id) == ("o/1", "o/2")
    assert first.expected.startswith(expected)
    assert first.actual == actual
    assert first.__notes__ == [f"its history: {tmp_path / 'o%2F1.jsonl'}"]
    if code is not shorter:
        assert f"in {code.__name__}" in first.source


def test_only_histories_that_do_not_fit_are_told(begun, tmp_path):
    begun.start(order, "o-3", "o-3", 0)
    begun.run_until_idle()
    export_histories(begun.store, tmp_path)

    @flow.defined(name="order")
    def charging_what_costs(order_id: str, cents: int):
        yield from log.append("orders", "placed", order_id)
        if cents:
            yield from flow.call(charge, order_id, cents)
        yield from flow.sleep(DAY)

    with pytest.raises(ExceptionGroup, match=r"of 3 histories in .*, 1 do not fit the code: o-3\.jsonl"):
        replay_histories([charging_what_costs], tmp_path)


def test_a_change_behind_what_was_done_fits(begun, tmp_path):
    export_histories(begun.store, tmp_path)

    @flow.defined(name="order")
    def longer(order_id: str, cents: int):
        yield from log.append("orders", "placed", order_id)
        yield from flow.call(charge, order_id, cents)
        yield from flow.sleep(2 * DAY)
        yield from flow.call(reserve, order_id)

    assert replay_histories([longer], tmp_path) == 2


def test_a_change_with_patched_fits(begun, tmp_path):
    export_histories(begun.store, tmp_path)

    @flow.defined(name="order")
    def patched(order_id: str, cents: int):
        if (yield from flow.patched("reserve first")):
            yield from flow.call(reserve, order_id)
        yield from from_before(order_id, cents)

    def from_before(order_id: str, cents: int):
        yield from log.append("orders", "placed", order_id)
        yield from flow.call(charge, order_id, cents)
        yield from flow.sleep(DAY)

    assert replay_histories([patched], tmp_path) == 2


def test_a_version_that_goes_on_and_is_not_there_is_told(begun, tmp_path):
    export_histories(begun.store, tmp_path, flow_ids=["o/1"])
    with pytest.raises(ExceptionGroup) as raised:
        replay_histories([changed(reordered, version=2)], tmp_path)
    (error,) = raised.value.exceptions
    assert isinstance(error, NoSuchFlow)
    assert "the code of 'order', version 1, is not here" in str(error)
    assert replay_histories([order, changed(reordered, version=2)], tmp_path) == 1


def test_a_type_that_what_is_recorded_does_not_fit_is_told(begun, tmp_path):
    export_histories(begun.store, tmp_path, flow_ids=["o/1"])

    @flow.defined(name="order")
    def with_dates(order_id: int, cents: int):
        yield from order(str(order_id), cents)

    with pytest.raises(ExceptionGroup) as raised:
        replay_histories([with_dates], tmp_path)
    (error,) = raised.value.exceptions
    assert isinstance(error, InvalidRequest)
    assert "argument 1 of flow 'order' does not fit its type" in str(error)


def with_a_customer(order_id: str, cents: int, customer: str):
    yield from order(order_id, cents)


def without_cents(order_id: str):
    yield from order(order_id, 500)


@pytest.mark.parametrize("code", [with_a_customer, without_cents], ids=lambda code: code.__name__)
def test_code_that_takes_other_arguments_is_told(begun, tmp_path, code):
    export_histories(begun.store, tmp_path, flow_ids=["o/1"])
    with pytest.raises(ExceptionGroup) as raised:
        replay_histories([changed(code)], tmp_path)
    (error,) = raised.value.exceptions
    assert str(error).startswith(
        "flow 'order', version 1, was begun with ('o/1', 500), and its code does not take that"
    )


# Files that are not histories


def test_a_directory_without_histories_is_refused(tmp_path):
    (tmp_path / "readme.md").write_text("none here")
    for directory in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidRequest, match=r"has no histories, files that end in \.jsonl"):
            replay_histories([order], directory)


def cut(lines):
    return lines[:-1]


def without_a_step(lines):
    return [line for line in lines if b"flow/call" not in line]


def with_a_later_version(lines):
    return [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]]


def without_an_outcome(lines):
    return [
        line.replace(b'"began":' + line.partition(b'"began":')[2], b'"x":1}') if b"persist/sleep" in line else line
        for line in lines
    ]


DAMAGED = {
    cut: "it has no last line, .* so it was cut",
    without_a_step: "line 7: expected .*'steps': 3.*, found .*'steps': 2.*: lines are missing",
    with_a_later_version: "line 1: expected .*version",
    without_an_outcome: "line 7: it has no 'began'",
    lambda lines: [b"x", *lines]: "line 1: JSON is malformed",
    lambda lines: [*lines, lines[-1]]: "line 9: there is more behind the last line",
    lambda lines: [lines[0], b"[]"]: r"line 2: it is a list.*, and not an object",
    lambda lines: [lines[0], b'{"color":"red"}']: "line 2: it is none of begun, steps, step and end, but color",
}


@pytest.mark.parametrize("damage", DAMAGED, ids=lambda damage: DAMAGED[damage][:20])
def test_a_file_that_was_damaged_is_refused_by_its_line(begun, tmp_path, damage):
    export_histories(begun.store, tmp_path, flow_ids=["o/1"])
    (path,) = tmp_path.iterdir()
    path.write_bytes(b"\n".join(damage(path.read_bytes().splitlines())))
    with pytest.raises(InvalidRequest, match=f"(?s)o%2F1.jsonl.*{DAMAGED[damage]}.*export the history anew"):
        replay_histories([order], tmp_path)


def test_bytes_that_would_not_be_the_same_again_stand_as_they_are(tmp_path):
    from interpreters.flow_testing.histories import _encoded_from_json, _encoded_to_json

    # The number 1, as another program might write it.
    long_one = b"\xcd\x00\x01"
    assert _encoded_to_json(long_one) == {"$encoded": "zQAB"}
    assert _encoded_from_json(_encoded_to_json(long_one)) == long_one


def test_flow_ids_are_a_list():
    with open_store("memory:") as store, pytest.raises(InvalidRequest, match="give a list of ids"):
        export_histories(store, "nowhere", flow_ids="o-1")


# Without files


def test_a_journal_is_checked_without_a_store(begun):
    events = begun.store.run(log.read("flow/o/1"))
    flow.check_history("o/1", Flows([order]), events)
    with pytest.raises(Nondeterministic):
        flow.check_history("o/1", Flows([changed(cheaper)]), events)


@pytest.mark.parametrize("first", [None, 1], ids=["nothing", "its middle"])
def test_what_is_not_a_journal_from_its_beginning_is_refused(begun, first):
    events = [] if first is None else begun.store.run(log.read("flow/o/1"))[first:]
    with pytest.raises(
        InvalidRequest, match=r"the journal of flow 'o/1' begins with .*give one that begins with 'begun'"
    ):
        flow.check_history("o/1", Flows([order]), events)
