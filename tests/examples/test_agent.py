"""The example `examples/agent.py`: it goes on wherever it was ended, and no tool does its work twice for one step.

What is outside is kept outside here: a `World` that no crash takes anything from, and that says which steps it did.
"""

import itertools
import subprocess
import sys
from collections import Counter
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import httpx
import msgspec
import pytest
from places import EXAMPLES
from typer.testing import CliRunner

from interpreters import open_store
from interpreters.cli import app
from interpreters.explore import PlugPulled, explore, explore_effects
from interpreters.traces import check_golden, load
from persist_effects import Conflict, InvalidRequest, Request, log, machine, perform
from persist_effects.machine import Suspended
from persist_effects.requests import Answered, Append
from persist_effects.trace import record, replay, resume_at

sys.path.insert(0, str(EXAMPLES))

import agent
from agent import AskModel, CallTool, Reply

GOLDEN = EXAMPLES.parent / "tests" / "examples" / "traces" / "agent.jsonl"
QUESTION = "Book a table for two on Friday in Oslo, outside if it is dry, and tell Bob."
TRANSCRIPT = """\
goes on after event 1
1 asked: Book a table for two on Friday in Oslo, outside if it is dry, and tell Bob.
2 tool_called: weather {'city': 'Oslo', 'day': 'Friday'}
3 tool_answered: rain
4 tool_called: book_table {'place': 'inside', 'day': 'Friday', 'people': 2}
5 tool_answered: table 1 inside
6 tool_called: send_message {'to': 'Bob', 'text': 'table 1 inside'}
7 tool_answered: sent
8 replied: table 1 inside. Bob knows.
outside/messages: 1
outside/tables: 1
"""
UNCERTAIN = "send_message was interrupted: nobody knows whether it was done, and it is not repeated"


class Done(Request[list[str]], frozen=True, tag="test-agent/done"):
    """What was done outside, each by its key, as often as it was done."""


class World:
    """The model, and the tools with all that they have done. Nothing of it is in a store."""

    def __init__(self, model=agent.scripted_model):
        self.done = []
        self.looked_up = {}
        self.rows = {AskModel: model, CallTool: self.call, Done: lambda request: list(self.done)}

    def call(self, request):
        if request.name == "weather":
            return "rain"
        if request.key in self.looked_up and agent.TOOLS[request.name].repeat == "keyed":
            return self.looked_up[request.key]
        self.done.append(request.key)
        self.looked_up[request.key] = "sent" if request.name == "send_message" else "table 1 inside"
        return self.looked_up[request.key]


def asked_store():
    """A store in whose conversation something was asked, with a world of its own."""
    store = open_store("memory:", effects=World().rows)
    store.run(agent.begin("1", QUESTION))
    return store


def booked_store():
    """A store whose agent has booked the table, and comes to the message next."""
    world = World()
    weather = CallTool("weather", {"city": "Oslo", "day": "Friday"}, "conversations/1/2")
    table = CallTool("book_table", {"place": "inside", "day": "Friday", "people": 2}, "conversations/1/4")
    store = open_store("memory:", effects=world.rows)
    store.run(agent.begin("1", QUESTION))
    for call in (weather, table):
        store.run(agent.SCHEMA.append("conversations/1", agent.ToolCalled(call.name, call.arguments, call.key)))
        store.run(agent.SCHEMA.append("conversations/1", agent.ToolAnswered(world.call(call))))
    return store


go_on = partial(agent.go_on, "1")


def facts(conversation="1"):
    events = yield from log.read(agent.stream_of(conversation))
    return [agent.SCHEMA.lift(event).data for event in events]


def each_step_is_done_once(*_):
    """Nothing was done twice; and once the conversation is at its end, nothing lacks."""
    done = yield from perform(Done())
    assert max(Counter(done).values(), default=1) == 1, f"done outside: {done}"
    answer = yield from go_on()
    done = yield from perform(Done())
    assert max(Counter(done).values(), default=1) == 1, f"done outside: {done}"
    steps = yield from facts()
    keys = [step.key for step in steps if isinstance(step, agent.ToolCalled) and step.tool != "weather"]
    uncertain = sum(isinstance(step, agent.ToolUncertain) for step in steps)
    assert set(done) <= set(keys), f"done outside: {done}, and the conversation knows of {keys}"
    assert len(done) >= len(keys) - uncertain, f"done outside: {done}, of {keys}"
    assert answer == steps[-1].text


# Run by itself


@pytest.mark.parametrize("url", ["memory:", "file:{}/store", "sqlite:{}/store.db", "spawn:memory:"])
def test_it_prints_this(tmp_path, capsys, url):
    agent.main(url.format(tmp_path))
    out = capsys.readouterr().out
    assert out.startswith(TRANSCRIPT)
    assert out[len(TRANSCRIPT) :].startswith("look at it:") == (url != "memory:")


def test_run_again_it_asks_nobody_and_says_the_same(tmp_path, capsys):
    agent.main(f"file:{tmp_path}/store")
    first = capsys.readouterr().out
    agent.main(f"file:{tmp_path}/store")
    assert capsys.readouterr().out == first.replace("after event 1", "after event 8")


def test_ended_in_each_tool_it_goes_on_where_it_stopped_and_says_what_it_does_not_know(tmp_path):
    def run(*arguments):
        command = [sys.executable, EXAMPLES / "agent.py", f"file:{tmp_path}/store", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    for tool, seq in (("weather", 1), ("book_table", 2), ("send_message", 4)):
        ended = run(tool)
        assert (ended.returncode, ended.stdout) == (1, f"goes on after event {seq}\n")
        assert ended.stderr == f"the process ends in the middle of {tool}: run it again\n"
    lines = run().stdout.splitlines()
    assert lines[0] == "goes on after event 6"
    assert lines[7:] == [
        f"7 tool_uncertain: {UNCERTAIN}",
        "8 replied: table 1 inside. Please ask Bob whether he knows.",
        "outside/messages: 1",
        "outside/tables: 1",
        f"look at it: persist-effects read file:{tmp_path}/store conversations/1",
    ]


def test_the_command_that_it_names_shows_the_conversation(tmp_path, capsys):
    agent.main(f"file:{tmp_path}/store")
    command = capsys.readouterr().out.splitlines()[-1].removeprefix("look at it: persist-effects ")
    shown = CliRunner().invoke(app, command.split())
    assert shown.exit_code == 0
    assert [line.split()[2] for line in shown.output.splitlines()] == [
        line.split()[1].rstrip(":") for line in TRANSCRIPT.splitlines()[1:9]
    ]


def test_a_tool_to_end_in_that_there_is_not_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(SystemExit, match="no tool 'fly' to end in: say one of weather, book_table, send_message"):
        agent.main(f"file:{tmp_path}/store", "fly")
    assert not (tmp_path / "store").exists()


def test_an_agent_that_was_overtaken_says_so(capsys, monkeypatch):
    def overtaken(request):
        yield from agent.SCHEMA.append("conversations/1", agent.Replied("Done."))
        return Reply("Too late.")

    monkeypatch.setitem(agent.ROWS, AskModel, overtaken)
    agent.main()
    assert capsys.readouterr().out.splitlines() == [
        "goes on after event 1",
        "another agent was faster, and goes on with it",
        f"1 asked: {QUESTION}",
        "2 replied: Done.",
    ]


# Without the model


def recorded():
    with open_store("memory:", effects=World().rows, clock=lambda: 0) as store:
        store.run(agent.begin("1", QUESTION))
        return record(go_on, store.handlers)


def test_a_run_asks_what_the_golden_one_asked_and_is_replayed_without_model_tools_and_store():
    outcome, trace = recorded()
    check_golden(trace, GOLDEN)
    golden = load(GOLDEN, kinds=[AskModel, CallTool])
    assert replay(go_on, golden) == outcome.value == "table 1 inside. Bob knows."


def recorded_model(trace):
    """A row that answers as the model did in a trace."""
    replies = {one.request.messages: one.outcome.value for one in trace if isinstance(one.request, AskModel)}
    return lambda request: replies[request.messages]


def test_the_recorded_model_alone_is_a_row_like_any_other():
    golden = load(GOLDEN, kinds=[AskModel, CallTool])
    with open_store("memory:", effects=World(recorded_model(golden)).rows) as store:
        store.run(agent.begin("2", QUESTION))
        assert store.run(agent.go_on("2")) == "table 1 inside. Bob knows."
        assert store.run(perform(Done())) == ["conversations/2/4", "conversations/2/6"]


class ModelServer(BaseHTTPRequestHandler):
    """The scripted model behind HTTP. It is ill when it is first asked after the weather."""

    asked = 0

    def do_POST(self):
        request = msgspec.json.decode(self.rfile.read(int(self.headers["Content-Length"])), type=AskModel)
        type(self).asked += 1
        self.send_response(503 if self.asked == 2 else 200)
        self.end_headers()
        self.wfile.write(msgspec.json.encode(agent.scripted_model(request)))

    def log_message(self, *_):
        """Nothing is to be printed."""


def test_a_model_behind_http_is_a_row_too_and_where_it_fails_the_next_run_goes_on(tmp_path, capsys, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), ModelServer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("MODEL_URL", f"http://127.0.0.1:{server.server_port}/")
        with pytest.raises(httpx.HTTPStatusError, match="503"):
            agent.main(f"file:{tmp_path}/store")
        assert capsys.readouterr().out == "goes on after event 1\n"
        agent.main(f"file:{tmp_path}/store")
        out = capsys.readouterr().out
        assert out.startswith(TRANSCRIPT.replace("after event 1", "after event 3"))
        assert ModelServer.asked == 5
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def branch(trace, number, answer, store):
    """What the program comes to, on another store, if it is answered otherwise at a request of its trace."""
    step = resume_at(go_on, trace, number).resume(answer)
    while isinstance(step, Suspended):
        step = step.resume(machine.run(perform(step.request), store.handlers))
    return step.value


def test_answered_otherwise_at_an_earlier_step_it_takes_another_way_and_the_conversation_stays_as_it_was():
    _, trace = recorded()
    asked = [number for number, one in enumerate(trace) if isinstance(one.request, AskModel)]
    second = asked[1]
    other = open_store("memory:", effects=World().rows)
    other.run(agent.begin("1", QUESTION))
    for one in trace.first(second):
        if isinstance(one.request, Append):
            other.run(perform(one.request))
    assert branch(trace, second, Reply("It rains: stay at home."), other) == "It rains: stay at home."
    assert [type(fact).__name__ for fact in other.run(facts())] == ["Asked", "ToolCalled", "ToolAnswered", "Replied"]
    assert other.run(perform(Done())) == []
    assert replay(go_on, trace) == "table 1 inside. Bob knows."


# Whatever ends it


@pytest.mark.exploration
def test_no_fault_at_any_two_requests_has_a_tool_do_its_work_twice():
    # 1 read, 4 questions, 3 calls and 7 appends. All states: one fault, and a second one after it.
    report = explore_effects(go_on, asked_store, each_step_is_done_once, depth=2)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report
    assert report.checked > 1_000


def crashed_everywhere(keep, sync="commit"):
    """Pull the plug at each request of the disk in turn, and go on; as often as there are such requests."""
    for at in itertools.count(1):
        world = World()
        store = open_store("crash:", seed=at, sync=sync, effects=world.rows)
        store.run(agent.begin("1", QUESTION))
        store.crash(keep, at=at)
        try:
            store.run(go_on())
        except PlugPulled:
            store = store.restart()
        else:
            assert at > 10, "there are more requests of the disk than that"
            return
        store.run(agent.begin("1", QUESTION))
        store.run(each_step_is_done_once())


@pytest.mark.parametrize("keep", ["nothing", "everything", None])
def test_no_loss_of_power_has_a_tool_do_its_work_twice(keep):
    # At each request of the disk. What is not synced is lost, stays, or is drawn by the number of the request.
    crashed_everywhere(keep)


def test_a_store_that_acknowledges_before_it_syncs_loses_what_was_begun():
    with pytest.raises(AssertionError, match="done outside"):
        crashed_everywhere("nothing", sync="os")


@pytest.mark.parametrize(("tool", "calls"), [("weather", 2), ("book_table", 2), ("send_message", 1)])
def test_a_tool_that_raises_ends_the_program_and_is_called_again_only_where_that_may_be(tool, calls):
    world, called = World(), []

    def call(request):
        called.append(request.name)
        answer = world.call(request)
        if request.name == tool and called.count(tool) == 1:
            raise OSError("the line is dead")
        return answer

    with open_store("memory:", effects={**world.rows, CallTool: call}) as store:
        store.run(agent.begin("1", QUESTION))
        with pytest.raises(OSError, match="dead"):
            store.run(go_on())
        store.run(each_step_is_done_once())
        uncertain = [fact.tool for fact in store.run(facts()) if isinstance(fact, agent.ToolUncertain)]
    assert called.count(tool) == calls
    assert uncertain == ([tool] if calls == 1 else [])


# Two at once


def one_comes_to_the_answer(outcomes):
    """Whoever has not come to the answer has met the other one; and no step was done twice."""
    answer = (yield from facts())[-1].text
    values = [outcome.value for outcome in outcomes if isinstance(outcome, Answered)]
    assert len(values) == len(outcomes)
    assert answer in values
    assert all(value == answer or isinstance(value, Conflict) for value in values), values
    yield from each_step_is_done_once()


TWO = {"one": go_on, "other": go_on}


@pytest.mark.exploration
def test_of_two_agents_on_one_conversation_one_comes_to_the_answer_in_every_order():
    # All orders of their requests, from the question to the answer.
    report = explore(TWO, asked_store, one_comes_to_the_answer)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report
    assert report.checked > 1_000


@pytest.mark.parametrize("bound", [2, pytest.param(None, marks=pytest.mark.exploration)])
def test_nor_does_a_crash_of_one_of_two_agents_have_a_message_sent_twice(bound):
    # From the message on: orders with at most two switches, or all; and one of the two gone at any of its requests and
    # begun again.
    report = explore(TWO, booked_store, each_step_is_done_once, crashes=True, bound=bound)
    assert (report.verdict, report.is_exhaustive) == ("passed", True), report
    assert report.checked > 500


# What these find


def called_before_it_is_written(events, is_mine):
    """A mutant of `next_fact` that calls a tool before the stream says so."""
    fact = yield from next_fact(events, is_mine)
    if isinstance(fact, agent.ToolCalled):
        return agent.ToolAnswered((yield from perform(CallTool(fact.tool, fact.arguments, fact.key))))
    return fact


def always_called_again(events, is_mine):
    """A mutant of `next_fact` that repeats whatever it finds begun."""
    return (yield from next_fact(events, True))


def called_again_with_another_key(events, is_mine):
    """A mutant of `next_fact` that makes a key for each call, not for each step."""
    call = events[-1].data
    if isinstance(call, agent.ToolCalled) and call.tool == "book_table" and not is_mine:
        return agent.ToolAnswered((yield from perform(CallTool(call.tool, call.arguments, f"{call.key}/again"))))
    return (yield from next_fact(events, is_mine))


next_fact = agent.next_fact


@pytest.mark.parametrize("mutant", [called_before_it_is_written, always_called_again, called_again_with_another_key])
def test_an_agent_that_is_careless_about_what_it_has_begun_is_found(mutant, monkeypatch):
    monkeypatch.setattr(agent, "next_fact", mutant)
    report = explore_effects(go_on, asked_store, each_step_is_done_once)
    assert report.verdict == "failed"
    assert "done outside: ['conversations/1/" in report.failures[0].found
    with pytest.raises(AssertionError, match="done outside"):
        crashed_everywhere("everything")


def test_a_tool_that_says_keyed_and_does_not_look_at_its_key_is_found():
    def forgetful():
        world = World()

        def call(request):
            world.looked_up.clear()
            return world.call(request)

        store = open_store("memory:", effects={**world.rows, CallTool: call})
        store.run(agent.begin("1", QUESTION))
        return store

    report = explore_effects(go_on, forgetful, each_step_is_done_once)
    assert report.verdict == "failed"
    assert "done outside: ['conversations/1/4', 'conversations/1/4'" in report.failures[0].found


def test_an_agent_that_appends_without_expecting_is_found_by_two_at_once(monkeypatch):
    def append(stream, expected, fact):
        return (yield from agent.SCHEMA.append(stream, fact))

    monkeypatch.setattr(agent.SCHEMA, "append_expect", append)
    report = explore(TWO, booked_store, each_step_is_done_once, bound=1)
    assert report.verdict == "failed"
    assert "done outside" in report.failures[0].found


# The rest


def test_a_tool_that_there_is_not_is_told_to_the_model():
    def model(request):
        last = request.messages[-1]
        return Reply(tool="fly") if last.role == "user" else Reply(last.text)

    with open_store("memory:", effects=World(model).rows) as store:
        store.run(agent.begin("1", QUESTION))
        assert store.run(go_on()) == "there is no tool 'fly'"


def test_a_tool_that_is_called_wrongly_says_so_to_the_model_and_does_nothing():
    with open_store("memory:", effects=agent.ROWS) as store:
        refused = store.run(perform(CallTool("book_table", {"place": "inside", "day": "Friday"}, "conversations/1/2")))
        assert refused == "nothing is booked: Object missing required field `people`"
        assert store.run(log.streams("outside/")) == []


def test_a_conversation_is_begun_once_and_before_it_goes_on():
    with open_store("memory:", effects=World().rows) as store:
        with pytest.raises(InvalidRequest, match="nothing was asked in 'conversations/1': begin"):
            store.run(go_on())
        for text in (QUESTION, "another"):
            store.run(agent.begin("1", text))
        assert store.run(facts()) == [agent.Asked(QUESTION)]
