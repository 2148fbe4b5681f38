"""``python -m interpreters.serving URL [OPTION=VALUE …]``: open a store and serve it over stdin and stdout.

It ends when stdin does. Its first frame is the reply to call 0, which nobody made: that the store is open, or why not.
"""

import sys
from typing import Any, BinaryIO, cast

import msgspec

from interpreters.opening import open_store
from interpreters.runtime.store import Store
from interpreters.stores.served.server import send_reply, serve
from interpreters.stores.served.transport import PipeTransport
from persist_effects.errors import InvalidRequest, PersistError, error_to_record, repr_of


def main(arguments: list[str]) -> int:
    """Serve one store to the process at the other end of stdin and stdout.

    Args:
        arguments: The store's URL, then options as ``NAME=JSON``.

    Returns:
        The process's exit code: 0, 2 for an error that was told, 130 when interrupted.
    """
    if not arguments:
        print("usage: python -m interpreters.serving URL [OPTION=VALUE ...]", file=sys.stderr)
        return 2
    transport = PipeTransport(cast(BinaryIO, sys.stdin.buffer), cast(BinaryIO, sys.stdout.buffer))
    try:
        with _opened(arguments, transport) as store:
            serve(store.handlers, transport, store.capabilities)
    except PersistError as error:
        print(f"persist-effects serve: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("persist-effects serve: interrupted", file=sys.stderr)
        return 130
    return 0


def _opened(arguments: list[str], transport: PipeTransport) -> Store:
    url, *options = arguments
    try:
        return open_store(url, **dict(map(_option, options)))
    except Exception as error:
        send_reply(transport, 0, False, error_to_record(error))
        raise


def _option(argument: str) -> tuple[str, Any]:
    """A name, and the value that its JSON says."""
    name, _, value = argument.partition("=")
    try:
        return name, msgspec.json.decode(value)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the option {repr_of(argument)} has no JSON value: write NAME=VALUE") from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
