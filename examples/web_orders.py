"""Orders over HTTP, by any number of worker processes on one store.

From the repository's root, with starlette and uvicorn installed:

    uvicorn examples.web_orders:app --workers 4 --timeout-graceful-shutdown 3

    curl -i localhost:8000/orders -H 'Idempotency-Key: 77' -d '{"sku": "tea", "count": 2}'
    curl -i localhost:8000/orders
    curl -i localhost:8000/orders/NUMBER/photo -X PUT -H 'Content-Type: image/png' --data-binary @photo.png
    curl -N localhost:8000/feed

``STORE`` in the environment is the store's URL, ``file:var/web-orders?share=yes`` unless it is set. The programs come
first: they are pure, and know nothing of HTTP. The handlers read what they are asked, await `store.arun`, and answer.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import asdict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ExceptionHandler

from interpreters import Store, open_store
from persist_effects import (
    Conflict,
    Effect,
    Event,
    InvalidRequest,
    KvPut,
    Page,
    StoreUnavailable,
    UncertainOutcome,
    blob,
    follow,
    kv,
    log,
    projection,
)  # fmt: skip

Position = Annotated[int, Meta(ge=0)]
Order = dict[str, Any]
"""Its number, the ``seq`` of its last event, and what its events say: ``sku`` and ``count``, later a ``photo``."""


class Wanted(Struct, frozen=True, forbid_unknown_fields=True):
    """What is to be ordered."""

    sku: Annotated[str, Meta(min_length=1, max_length=100)]
    count: Annotated[int, Meta(ge=1, le=1000)]


class NotThere(LookupError):
    """There is no such order, or it has no photo."""


def step(order: Order, event: Event) -> Order:
    return {**order, "number": event.stream.removeprefix("orders/"), "seq": event.seq, **event.data}


def place(key: str, wanted: Wanted) -> Effect[Order]:
    """Place an order once, however often it is asked for: its number follows from the key.

    Where the store's process dies under the write, `append_once` finds out whether it was written, or writes it again.
    """
    stream = f"orders/{hashlib.sha256(key.encode()).hexdigest()[:32]}"
    event = yield from log.append_once(stream, "placed", "placed", asdict(wanted))
    if event.data != asdict(wanted):
        raise InvalidRequest(f"the key {key!r} was used for another order: give each order a key of its own")
    return step({}, event)


def find(number: str) -> Effect[Order]:
    found = yield from projection.project(f"orders/{number}", step, Order())
    if not found.value:
        raise NotThere(f"there is no order {number!r}")
    return found.value


def attach(number: str, photo: bytes, mime: str, seen: int | None) -> Effect[Order | Conflict]:
    """Give an order a photo, unless something happened to it after the event ``seen``. The log holds the reference."""
    while True:
        order = yield from find(number)
        ref = asdict((yield from blob.put(photo, mime)))
        if order.get("photo") == ref:  # an earlier request's, or this one's, where its outcome was uncertain
            return order
        try:
            expected = order["seq"] if seen is None else seen
            event = yield from log.append_expect(f"orders/{number}", expected, "photographed", {"photo": ref})
        except UncertainOutcome:
            continue
        if not isinstance(event, Conflict):
            return step(order, event)
        if seen is not None:
            return event


def photo_of(number: str) -> Effect[tuple[str, bytes]]:
    ref = (yield from find(number)).get("photo")
    if ref is None:
        raise NotThere(f"the order {number!r} has no photo")
    return ref["mime"], (yield from blob.get(ref))


def listed() -> Effect[list[Order]]:
    """All orders as they were placed: a read model, which whoever reads it brings up to date."""

    def list_order(event: Event) -> list[KvPut]:
        return [KvPut(f"listed/{event.position:016}", step({}, event))]

    yield from follow("listed", "orders/", list_order, types=["placed"], batch=100)
    return [entry.value for _, entry in (yield from kv.entries("listed/"))]


def next_events(position: Position) -> Effect[Page]:
    """The events past a position. Where there are none, it waits for some, up to 15 seconds."""
    yield from log.wait(position, "orders/", timeout=15)
    return (yield from log.page_all(position, "orders/"))


# From here on it is HTTP.


def answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """JSON, and which worker it is from."""
    told = {**(headers or {}), "X-Worker": f"{os.getpid()}"}
    return Response(msgspec.json.encode(content), status, told, "application/json")


async def run(request: Request, program: Effect[Any]) -> Any:
    store: Store = request.state.store
    return await store.arun(program)


async def post_order(request: Request) -> Response:
    key = request.headers.get("Idempotency-Key")
    if not key:
        return answer({"error": "an order needs the header Idempotency-Key"}, 400)
    order = await run(request, place(key, msgspec.json.decode(await request.body(), type=Wanted)))
    return answer(order, 201, {"Location": f"/orders/{order['number']}"})


async def get_orders(request: Request) -> Response:
    return answer(await run(request, listed()))


async def get_order(request: Request) -> Response:
    return answer(await run(request, find(request.path_params["number"])))


async def put_photo(request: Request) -> Response:
    mime = request.headers.get("Content-Type", "")
    if not mime.startswith("image/"):
        return answer({"error": "a photo needs the header Content-Type, such as image/png"}, 415)
    seen = msgspec.convert(request.query_params.get("seq"), Position | None, strict=False)
    attached = await run(request, attach(request.path_params["number"], await request.body(), mime, seen))
    return answer(attached, 409 if isinstance(attached, Conflict) else 200)


async def get_photo(request: Request) -> Response:
    mime, photo = await run(request, photo_of(request.path_params["number"]))
    return Response(photo, 200, {"X-Content-Type-Options": "nosniff"}, mime)


async def get_feed(request: Request) -> Response:
    """Server-sent events from ``Last-Event-ID`` on, which browsers send by themselves when they connect again."""
    last = msgspec.convert(request.headers.get("Last-Event-ID", "0"), Position, strict=False)

    async def pushed(position: int) -> AsyncIterator[str]:
        while True:
            page = await run(request, next_events(position))
            for event in page.events:
                data = msgspec.json.encode({"stream": event.stream, "seq": event.seq, "data": event.data}).decode()
                yield f"id: {event.position}\nevent: {event.type}\ndata: {data}\n\n"
            yield ": that is all so far\n\n"
            position = page.next

    return StreamingResponse(pushed(last), 200, {"Cache-Control": "no-store"}, "text/event-stream")


def failing(status: int, **headers: str) -> ExceptionHandler:
    async def failed(_: Request, error: Exception) -> Response:
        return answer({"error": str(error)}, status, headers)

    return failed


def application(open_it: Callable[[], Store]) -> Starlette:
    """The application. Each worker opens the store when it begins, and closes it when it ends."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[dict[str, Store]]:
        with open_it() as store:
            yield {"store": store}

    photo = "/orders/{number}/photo"
    return Starlette(
        routes=[
            Route("/orders", post_order, methods=["POST"]),
            Route("/orders", get_orders),
            Route("/orders/{number}", get_order),
            Route(photo, put_photo, methods=["PUT"]),
            Route(photo, get_photo),
            Route("/feed", get_feed),
        ],
        exception_handlers={
            msgspec.DecodeError: failing(400),
            NotThere: failing(404),
            InvalidRequest: failing(422),
            # Nothing was written, or nobody knows it yet: either way the same request may be sent again.
            StoreUnavailable: failing(503, **{"Retry-After": "1"}),
            UncertainOutcome: failing(503, **{"Retry-After": "1"}),
        },
        lifespan=lifespan,
        max_body_size=8 * 1024 * 1024,
    )


app = application(lambda: open_store(os.environ.get("STORE", "file:var/web-orders?share=yes")))
