"""An agent: its questions to a model and its calls of tools are requests, its conversation is a stream of events.

Each step is one event, which must follow the last one that the program has seen. So the stream alone says what comes
next: a program that was ended anywhere goes on from there, and of two on one conversation one meets a `Conflict` and
stops. A step whose event is there is not asked for again.

That a tool is called stands in the stream before it is called. Where what came of it is missing when a program begins,
another one was ended in between, or is at it still, and nobody knows whether the tool has done its work. What then
happens, the tool says itself, in the words of durable flows:

=======  ============================================================================================
safe     it is called again: it only reads, or doing it twice is as doing it once
keyed    it is called again with the same key, by which the other side knows what it has done already
never    it is not called again, and the model is told that nobody knows
=======  ============================================================================================

The model may be asked twice for one step. Nothing was done yet by what it said first, so that is only paid for. All of
it rests on writes that are on the disk when they are acknowledged, ``sync=commit``, as stores do unless told otherwise.

A tool that refuses returns so, as a text for the model, also where the model has called it wrongly. What it raises ends
the program, as a crash would, and the next run comes to the same step.
"""

import os
import sys
from collections.abc import Callable
from typing import Any, Literal

import httpx
import msgspec
from msgspec import Struct

from interpreters import open_store
from persist_effects import Conflict, Effect, Event, HandlerTable, InvalidRequest, Request, Schema, log, perform
from persist_effects.machine import Handler

# What is asked of the world: two requests of our own


class Message(Struct, frozen=True):
    """A part of a conversation, as a model reads it. ``role`` is ``user``, ``assistant`` or ``tool``."""

    role: str
    text: str


class Reply(Struct, frozen=True):
    """What a model says: that it wants a tool called, or, where it names none, its answer."""

    text: str = ""
    tool: str = ""
    arguments: dict[str, Any] = {}


class AskModel(Request[Reply], frozen=True, tag="agent/ask-model"):
    """Ask the model how the conversation goes on. ``tools`` says what each of them does."""

    messages: tuple[Message, ...]
    tools: dict[str, str]


class CallTool(Request[str], frozen=True, tag="agent/call-tool"):
    """Call a tool. The ``key`` is the same whenever it is called for the same step."""

    name: str
    arguments: dict[str, Any]
    key: str


class Tool(Struct, frozen=True):
    """What a model is told of a tool, and whether a call may be repeated of which nobody knows what came."""

    says: str
    repeat: Literal["safe", "keyed", "never"]


class Table(Struct, frozen=True):
    """What the model is to say of a table."""

    place: str
    day: str
    people: int


TOOLS = {
    "weather": Tool("the weather in a city, on a day", "safe"),
    "book_table": Tool("books a table: place, day, people", "keyed"),
    "send_message": Tool("sends a message: to, text", "never"),
}


# The conversation


class Asked(Struct, frozen=True):
    """A person has asked for something."""

    text: str


class ToolCalled(Struct, frozen=True):
    """The model wants a tool called, which happens next."""

    tool: str
    arguments: dict[str, Any]
    key: str


class ToolAnswered(Struct, frozen=True):
    """The tool has answered."""

    text: str


class ToolUncertain(Struct, frozen=True):
    """Nobody knows whether the tool has done its work, and it is not called again."""

    tool: str


class Replied(Struct, frozen=True):
    """The model has answered."""

    text: str


Fact = Asked | ToolCalled | ToolAnswered | ToolUncertain | Replied
SCHEMA = Schema[Fact](
    {
        "asked": Asked,
        "tool_called": ToolCalled,
        "tool_answered": ToolAnswered,
        "tool_uncertain": ToolUncertain,
        "replied": Replied,
    }
)


def stream_of(conversation: str) -> str:
    return f"conversations/{conversation}"


def message_of(fact: Fact) -> Message:
    """A step as the model reads it."""
    match fact:
        case Asked(text):
            return Message("user", text)
        case ToolCalled(tool, arguments):
            return Message("assistant", f"{tool} {arguments}")
        case ToolAnswered(text):
            return Message("tool", text)
        case ToolUncertain(tool):
            return Message("tool", f"{tool} was interrupted: nobody knows whether it was done, and it is not repeated")
        case Replied(text):
            return Message("assistant", text)


# The program


def begin(conversation: str, text: str) -> Effect[None]:
    """Ask for something in a new conversation. Where it is there already, nothing changes."""
    yield from SCHEMA.append_expect(stream_of(conversation), 0, Asked(text))


def go_on(conversation: str) -> Effect[str | Conflict]:
    """Take the steps that are missing until the model answers. Returns its answer, or who was faster."""
    stream = stream_of(conversation)
    events = [SCHEMA.lift(event) for event in (yield from log.read(stream))]
    if not events:
        raise InvalidRequest(f"nothing was asked in {stream!r}: begin the conversation first")
    is_mine = False
    while True:
        last = events[-1]
        if isinstance(last.data, Replied):
            return last.data.text
        appended = yield from SCHEMA.append_expect(stream, last.seq, (yield from next_fact(events, is_mine)))
        if isinstance(appended, Conflict):
            return appended
        events.append(appended)
        is_mine = True


def next_fact(events: list[Event[Fact]], is_mine: bool) -> Effect[Fact]:
    """Do what comes after the last event. ``is_mine``: this very program has written it, and was not ended since."""
    last = events[-1]
    match last.data:
        case ToolCalled(tool) if tool not in TOOLS:
            return ToolAnswered(f"there is no tool {tool!r}")
        case ToolCalled(tool) if TOOLS[tool].repeat == "never" and not is_mine:
            return ToolUncertain(tool)
        case ToolCalled(tool, arguments, key):
            return ToolAnswered((yield from perform(CallTool(tool, arguments, key))))
        case _:
            messages = tuple(message_of(event.data) for event in events)
            reply = yield from perform(AskModel(messages, {name: tool.says for name, tool in TOOLS.items()}))
            if not reply.tool:
                return Replied(reply.text)
            return ToolCalled(reply.tool, reply.arguments, f"{last.stream}/{last.seq + 1}")


# The rows: who answers

ROWS = HandlerTable()


@ROWS.row(AskModel)
def scripted_model(request: AskModel) -> Reply:
    """In the place of a model: answers by what its tools have said."""
    said = [message.text for message in request.messages if message.role == "tool"]
    if not said:
        return Reply(tool="weather", arguments={"city": "Oslo", "day": "Friday"})
    if len(said) == 1:
        place = "inside" if "rain" in said[0] else "on the terrace"
        return Reply(tool="book_table", arguments={"place": place, "day": "Friday", "people": 2})
    if len(said) == 2:
        return Reply(tool="send_message", arguments={"to": "Bob", "text": said[1]})
    return Reply(f"{said[1]}. Bob knows." if said[2] == "sent" else f"{said[1]}. Please ask Bob whether he knows.")


@ROWS.row(CallTool)
def call_tool(request: CallTool) -> Effect[str]:
    """The world outside. An example has none, so its books are streams here, which the conversation never reads."""
    match request.name:
        case "weather":
            return "rain"
        case "book_table":
            try:
                table = msgspec.convert(request.arguments, Table)
            except msgspec.ValidationError as error:
                return f"nothing is booked: {error}"
            booked = yield from log.append_once("outside/tables", request.key, "booked", table)
            return f"table {booked.seq} {table.place}"
        case "send_message":
            yield from log.append("outside/messages", "sent", request.arguments)
            return "sent"
        case unknown:
            raise InvalidRequest(f"there is no tool {unknown!r}")


def http_model(url: str) -> Callable[[AskModel], Reply]:
    """A row that asks a model behind an address. Where your provider has a form of its own, put it in here."""

    def ask(request: AskModel) -> Reply:
        answer = httpx.post(url, json=msgspec.to_builtins(request), timeout=120).raise_for_status()
        return msgspec.json.decode(answer.content, type=Reply)

    return ask


def ended_in(name: str) -> Handler:
    """A row for tools whose process ends in one of them: after its work, before anybody knows of it."""

    def call(request: CallTool) -> Effect[str]:
        text = yield from call_tool(request)
        if request.name == name:
            raise SystemExit(f"the process ends in the middle of {name}: run it again")
        return text

    return call


# To be run


def told(conversation: str) -> Effect[list[str]]:
    """The conversation, and how often something was done outside."""
    lines = []
    for event in (yield from log.read(stream_of(conversation))):
        lines += [f"{event.seq} {event.type}: {message_of(SCHEMA.lift(event).data).text}"]
    for stream in (yield from log.streams("outside/")):
        lines += [f"{stream}: {len((yield from log.read(stream)))}"]
    return lines


def main(url: str = "memory:", end_in: str = "") -> None:
    rows: dict[type[Request[Any]], Handler] = {**ROWS}
    if end_in and end_in not in TOOLS:
        raise SystemExit(f"there is no tool {end_in!r} to end in: say one of {', '.join(TOOLS)}")
    if end_in:
        rows[CallTool] = ended_in(end_in)
    if "MODEL_URL" in os.environ:
        rows[AskModel] = http_model(os.environ["MODEL_URL"])
    with open_store(url, effects=rows) as store:
        store.run(begin("1", "Book a table for two on Friday in Oslo, outside if it is dry, and tell Bob."))
        print(f"goes on after event {store.run(log.last_seq(stream_of('1')))}")
        if isinstance(store.run(go_on("1")), Conflict):
            print("another agent was faster, and goes on with it")
        print(*store.run(told("1")), sep="\n")
    if not url.startswith("memory:"):
        print(f"look at it: persist-effects read {url} {stream_of('1')}")


if __name__ == "__main__":
    main(*sys.argv[1:])
