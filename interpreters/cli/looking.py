"""Commands that look inside of any store: streams, read, keys, get. A page of it is in memory at a time."""

import sys
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer

from interpreters.cli.counting import StreamCount, count_streams, pages_by_name
from interpreters.cli.exits import exit_codes
from interpreters.cli.inputs import AnyUrl, AsJson, reading_any
from interpreters.cli.lines import option, painter, print_event, print_json, print_pages, told
from interpreters.cli.output import printable
from interpreters.cli.typed import As, TypeName, TypeOrSchema
from persist_effects import kv, log
from persist_effects.errors import InvalidRequest
from persist_effects.event import Event
from persist_effects.json_values import to_json
from persist_effects.machine import perform
from persist_effects.requests import PAGE_SIZE, Entry, KvEntries, KvKeys, Read, Streams

StreamName = Annotated[str, typer.Argument(metavar="STREAM", help="The stream's name.")]
KeyName = Annotated[str, typer.Argument(metavar="KEY", help="The key.")]
Prefix = Annotated[str, typer.Option(help="Only those whose names begin with this.")]
AfterName = Annotated[str, typer.Option("--after", help="Only those behind this name.")]
Limit = Annotated[int | None, typer.Option(min=1, help="How many at most.")]


def streams(
    url: AnyUrl,
    *,
    prefix: Prefix = "",
    after: AfterName = "",
    limit: Limit = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="With how many events each has, and its last number.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the streams of a store by their names, as they come. With --json, a line for each."""
    with exit_codes(as_json), reading_any(url) as store:
        paint = painter()

        def print_name(name: str) -> None:
            if as_json:
                print_json({"stream": name})
            else:
                sys.stdout.write(paint(printable(name), "cyan") + "\n")

        def print_counted(one: StreamCount) -> None:
            if as_json:
                print_json(one)
            else:
                sys.stdout.write(f"{one.events:>10}  {one.last_seq:>10}  {paint(printable(one.stream), 'cyan')}\n")

        size = _page_size(limit)
        pages = pages_by_name(store, lambda last: Streams(prefix, last, size), str, after, size)
        if not counts:
            print_pages(pages, limit, print_name, lambda name: option("--after", name))
            return
        _print_head(f"{'EVENTS':>10}  {'LAST':>10}  STREAM", as_json)
        counted = (count_streams(store, page) for page in pages)
        print_pages(counted, limit, print_counted, lambda one: option("--after", one.stream))


def keys(
    url: AnyUrl,
    *,
    prefix: Prefix = "",
    after: AfterName = "",
    limit: Limit = None,
    values: Annotated[bool, typer.Option("--values", help="With what stands under each, and its revision.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the keys of a store by their names, as they come. With --json, a line for each."""
    with exit_codes(as_json), reading_any(url) as store:
        paint = painter()

        def print_key(key: str) -> None:
            if as_json:
                print_json({"key": key})
            else:
                sys.stdout.write(paint(printable(key), "cyan") + "\n")

        def print_entry(pair: tuple[str, Entry]) -> None:
            key, entry = pair
            if as_json:
                print_json({"key": key, "value": to_json(entry.value), "revision": entry.revision})
            else:
                name = paint(printable(key), "cyan")
                sys.stdout.write(f"{entry.revision:>10}  {name}  {told(entry.value)}\n")

        size = _page_size(limit)
        if not values:
            names = pages_by_name(store, lambda last: KvKeys(prefix, last, size), str, after, size)
            print_pages(names, limit, print_key, lambda key: option("--after", key))
            return
        _print_head(f"{'REVISION':>10}  KEY  VALUE", as_json)
        pairs = pages_by_name(store, lambda last: KvEntries(prefix, last, size), lambda pair: pair[0], after, size)
        print_pages(pairs, limit, print_entry, lambda pair: option("--after", pair[0]))


def read(
    url: AnyUrl,
    stream: StreamName,
    *,
    after: Annotated[int, typer.Option(min=0, help="Only events past this number of the stream.")] = 0,
    until: Annotated[int | None, typer.Option(min=0, help="Only events up to and with this number.")] = None,
    backwards: Annotated[bool, typer.Option("--backwards", help="The newest of them first.")] = False,
    limit: Limit = None,
    type_name: TypeOrSchema = None,
    as_json: AsJson = False,
) -> None:
    """Print the events of a stream, each with its number, its time and its type. With --json, as `export` does."""
    with exit_codes(as_json), reading_any(url) as store:
        look, paint = As(type_name), painter()
        if store.run(log.last_seq(stream)) == 0:
            lists = "`persist-effects streams` lists those that there are"
            if store.run(kv.has(stream)):
                lists = f"a key has that name, which `persist-effects get` shows; {lists}"
            raise InvalidRequest(f"there is no stream {stream!r}: {lists}")
        size = _page_size(limit)
        pages = _pages_of_stream(store, Read(stream, after, until, size, backwards), is_quiet=as_json)
        print_pages(
            pages,
            limit,
            lambda event: print_event(event, look, paint, as_json, is_alone=True),
            lambda event: option("--until", event.seq - 1) if backwards else option("--after", event.seq),
        )


def get(url: AnyUrl, key: KeyName, type_name: TypeName = None, as_json: AsJson = False) -> None:
    """Print what stands under a key, with its revision, which `put` and `delete` take as what they expect."""
    with exit_codes(as_json), reading_any(url) as store:
        look, paint = As(type_name), painter()
        entry = store.run(kv.entry(key))
        if entry is None:
            lists = "`persist-effects keys` lists those that there are"
            if store.run(log.last_seq(key)):
                lists = f"a stream has that name, which `persist-effects read` shows; {lists}"
            raise InvalidRequest(f"there is no key {key!r}: {lists}")
        what = f"key {key!r}"
        if as_json:
            print_json({"key": key, "value": to_json(look.plain(what, entry.value)), "revision": entry.revision})
            return
        value = look.told(what, entry.value) if look.is_typed else _indented(entry.value)
        sys.stdout.write(f"{paint(printable(key), 'cyan')}: revision {entry.revision}\n{value}\n")


def _print_head(head: str, as_json: bool) -> None:
    if not as_json:
        sys.stdout.write(painter()(head, "bold") + "\n")


def _page_size(limit: int | None) -> int:
    # One more than is printed tells whether there is more.
    return PAGE_SIZE if limit is None else min(limit + 1, PAGE_SIZE)


def _pages_of_stream(store: Any, request: Read, *, is_quiet: bool) -> Iterator[list[Event]]:
    """The events that are asked for, page by page. Where some were truncated that is told once, on stderr."""
    while True:
        page = store.run(perform(request))
        if page.hole is not None and not is_quiet:
            typer.echo(f"events before {page.hole.first_left} were truncated", err=True)
            is_quiet = True
        yield page.events
        if request.backwards:
            if page.next <= request.after:
                return
            request = msgspec.structs.replace(request, until=page.next)
        else:
            last = page.head if request.until is None else min(request.until, page.head)
            if page.next >= last:
                return
            request = msgspec.structs.replace(request, after=page.next)


def _indented(value: Any) -> str:
    lines = msgspec.json.format(msgspec.json.encode(to_json(value)), indent=2).decode().split("\n")
    return "\n".join(map(printable, lines))
