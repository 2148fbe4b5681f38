"""Golden traces that leave fields out: what is masked stands in no file, and is equal whatever it is."""

import itertools
from typing import Any

import msgspec
import pytest

from interpreters import open_store
from interpreters.traces import check_golden, load, save
from persist_effects import InvalidRequest, Request, all_of, kv, log, new_id, now, perform, transact
from persist_effects.json_values import MASKED, from_json
from persist_effects.requests import Append, Draft, KvPut
from persist_effects.trace import Continuation, Trace, as_text, compare, diff, masked, record, replay, resume_at

times = itertools.count(1_700_000_000_000_000)


class LogIn(Request[dict[str, Any]], frozen=True, tag="shop/log-in"):
    user: str
    password: str


def logged(token: str = "secret", number: int = 1, password: str = "hidden") -> Trace:
    """A run at another time each time."""

    def program() -> Any:
        session = yield from perform(LogIn("ada", password))
        yield from log.append("visits", "came", {"token": session["token"], "number": number})
        yield from log.read("visits")
        yield from all_of(kv.put("session", session), kv.get("session"), log.read("visits"))
        yield from transact(Append("visits", (Draft("went", number, meta={"at": 7}),)), KvPut("n", 1))
        yield from now()
        return (yield from new_id())

    row = lambda request: {"token": token, "user": request.user}  # noqa: E731
    with open_store("memory:", effects={LogIn: row}, clock=times.__next__) as store:
        return record(program, store)[1]


MASK = ["at", "token", "password", "persist/now.answer", "persist/new-id.answer"]


@pytest.mark.parametrize("name", ["login.jsonl", "login.trace"])
def test_what_is_masked_is_equal_whatever_it_is_and_stands_in_no_file(tmp_path, name):
    check_golden(logged(), tmp_path / name, update=True, mask=MASK)
    check_golden(logged("other", password="another"), tmp_path / name, mask=MASK)
    written = (tmp_path / name).read_bytes()
    assert b"secret" not in written
    assert b"hidden" not in written
    assert b"ada" in written
    with pytest.raises(AssertionError, match="the trace differs from the golden one"):
        check_golden(logged(number=2), tmp_path / name, mask=MASK)


def test_the_file_shows_that_something_stood_there(tmp_path):
    check_golden(logged(), tmp_path / "login.jsonl", update=True, mask=MASK)
    lines = [msgspec.json.decode(line) for line in (tmp_path / "login.jsonl").read_text().splitlines()]
    mark = {"$masked": True}
    assert lines[1]["request"] == {"op": "shop/log-in", "user": "ada", "password": mark}
    assert lines[1]["answer"] == {"token": mark, "user": "ada"}
    assert lines[2]["answer"]["at"] == mark
    [event] = lines[3]["answer"]["events"]
    assert event[:4] == ["visits", 1, "came", mark]
    assert event[4] == {"token": mark, "number": 1}
    [put, got, read] = lines[4]["answer"]
    assert (put, got["answer"]["value"]["token"]) == ({"answer": 1}, mark)
    assert read["answer"]["events"][0][3] == mark
    assert lines[5]["request"]["writes"][0]["events"][0]["meta"] == {"at": mark}
    assert (lines[6]["answer"], lines[7]["answer"]) == (mark, mark)


def test_what_differs_beside_the_mask_is_shown_with_the_marks(tmp_path):
    path = tmp_path / "login.jsonl"
    check_golden(logged(), path, update=True, mask=MASK)
    with pytest.raises(AssertionError) as found:
        check_golden(logged(number=2), path, mask=MASK)
    told = str(found.value)
    assert "data': {'token': <masked>, 'number': 1}" in told
    assert "secret" not in told
    assert "→ {'type': 'Appended', 'first_seq': 1, 'last_seq': 1, 'position': 1, 'at': <masked>}" in told


def test_a_longer_name_masks_less_and_a_tuple_names_what_has_a_dot():
    def program():
        yield from kv.put("a", {"token": 1, "x.y": 2, "deep": [{"token": 3}]})
        yield from kv.put("b", {"data": {"token": 4}})

    with open_store("memory:") as store:
        trace = record(program, store)[1]
    shown = [str(one) for one in masked(trace, ["data.token", ("value", "x.y")])]
    assert "{'token': 1, 'x.y': <masked>, 'deep': [{'token': 3}]}" in shown[0]
    assert "{'data': {'token': <masked>}}" in shown[1]
    assert "'deep': [{'token': <masked>}]" in str(masked(trace, ["value.deep.token"])[0])
    assert "value=<masked>" in str(masked(trace, ["persist/kv-put.request.value"])[0])


def test_a_function_says_of_each_path_and_value_whether_it_is_masked():
    paths = []

    def is_secret(path, value):
        paths.append(path)
        return value == "secret"

    trace = masked(logged(), is_secret)
    assert "secret" not in trace.to_json_lines()
    assert ("persist/read", "answer", "events", "data", "token") in paths
    assert ("shop/log-in", "request", "password") in paths


def test_errors_are_masked_too_and_keep_their_class(tmp_path):
    class SoldOut(Exception):
        def __init__(self, token):
            super().__init__(f"sold out for {token}")
            self.token = token

    def failing(request):
        raise SoldOut(f"secret {next(times)}")

    def program():
        try:
            yield from perform(LogIn("ada", "hidden"))
        except SoldOut:
            return

    path = tmp_path / "failed.jsonl"
    for update in (True, False):
        trace = record(program, {LogIn: failing})[1]
        check_golden(trace, path, update=update, mask=["error", "password"])
    assert "secret" not in path.read_text()
    assert "SoldOut" in path.read_text()
    assert "SoldOut: <masked>" in str(load(path)[0])


@pytest.mark.parametrize("update", [True, False])
@pytest.mark.parametrize(
    ("mask", "told"), [(["at", "tokn"], "the mask 'tokn' matches nothing"), (lambda path, value: False, "function")]
)
def test_a_mask_that_matches_nothing_is_a_failure_that_says_so(tmp_path, mask, told, update):
    path = tmp_path / "login.jsonl"
    check_golden(logged(), path, update=True, mask=MASK)
    before = path.read_bytes()
    with pytest.raises(AssertionError, match=f"{told}.*its names are .*user.*token"):
        check_golden(logged(), path, update=update, mask=mask)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "mask", ["at", b"at", 7, [7], [""], ["a..b"], [()], [("a", 1)], ["op"], ["shop/log-in.request.op"]]
)
def test_what_is_no_mask_is_refused_before_anything_is_written(tmp_path, mask):
    with pytest.raises(InvalidRequest, match="mask"):
        check_golden(logged(), tmp_path / "login.jsonl", update=True, mask=mask)
    assert list(tmp_path.iterdir()) == []


def test_a_golden_trace_that_holds_in_the_clear_what_the_mask_names_is_told(tmp_path):
    path, mask = tmp_path / "login.jsonl", [*MASK]
    check_golden(logged(), path, update=True, mask=[name for name in mask if name != "token"])
    with pytest.raises(AssertionError, match="holds in the clear what the mask names: write it anew"):
        check_golden(logged(), path, mask=mask)


def test_without_its_mask_a_masked_golden_trace_differs(tmp_path):
    path = tmp_path / "login.jsonl"
    check_golden(logged(), path, update=True, mask=MASK)
    with pytest.raises(AssertionError, match="<masked>"):
        check_golden(logged(), path)


def test_a_masked_trace_is_saved_and_loaded_and_compared_with_others(tmp_path):
    one, other = masked(logged(), MASK), masked(logged("other", password="p"), MASK)
    assert one == other
    assert as_text(diff(one, other)) == "no difference"
    for name in ("a.jsonl", "a.trace"):
        save(one, tmp_path / name)
        assert load(tmp_path / name) == one
        assert load(tmp_path / name).is_masked
    assert not logged().is_masked
    assert masked(one, MASK) == one


def test_what_runs_from_answers_says_that_some_were_left_out():
    trace = masked(logged(), MASK)
    uses = (
        lambda: replay(new_id, trace),
        lambda: resume_at(new_id, trace, 0),
        lambda: Continuation(new_id, trace, 0).resume(1),
        lambda: compare(trace, open_store("memory:")),
    )
    for use in uses:
        with pytest.raises(InvalidRequest, match="the trace has masked values, which no program can go on with"):
            use()


def test_a_value_that_looks_like_a_mark_is_none():
    def program():
        yield from kv.put("a", {"$masked": True, "b": "<masked>", "c": b"\xc7\x00M"})

    with open_store("memory:") as store:
        trace = record(program, store)[1]
    assert not trace.is_masked
    assert Trace.from_json_lines(trace.to_json_lines()) == trace
    assert not Trace.from_json_lines(trace.to_json_lines()).is_masked


def test_a_mark_is_not_a_value_of_a_store():
    assert from_json({"$masked": True}) == MASKED
    with pytest.raises(InvalidRequest, match=r"\$masked has a str, 'x': give true"):
        from_json({"$masked": "x"})
    with open_store("memory:") as store, pytest.raises(InvalidRequest):
        store.run(kv.put("a", from_json({"$masked": True})))
