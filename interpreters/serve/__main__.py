"""``python -m interpreters.serve URL``: open a store and serve it over stdin and stdout, until stdin ends."""

import sys
from typing import BinaryIO, cast

from interpreters.serve.server import serve
from interpreters.serve.transport import PipeTransport
from interpreters.store import open_store
from persist_effects.errors import PersistError


def main(arguments: list[str]) -> int:
    """Serve the store that the only argument names. Returns the process's exit code."""
    if len(arguments) != 1:
        print("usage: python -m interpreters.serve URL", file=sys.stderr)
        return 2
    reader, writer = sys.stdin.buffer, sys.stdout.buffer
    try:
        with open_store(arguments[0]) as store:
            serve(store.handlers, PipeTransport(cast(BinaryIO, reader), cast(BinaryIO, writer)))
    except PersistError as error:
        print(f"persist-effects serve: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
