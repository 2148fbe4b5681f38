"""A bare echo of asyncio at a Unix socket: `python -m benchmarks.echo_server PATH`. It ends with its stdin.

Streams, as most would write it: a length of four bytes, then so many bytes, and the same back.
"""

import asyncio
import sys
from contextlib import suppress


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send each frame back."""
    with suppress(asyncio.IncompleteReadError):
        while True:
            header = await reader.readexactly(4)
            writer.write(header + await reader.readexactly(int.from_bytes(header, "big")))
            await writer.drain()
    writer.close()


async def main(path: str) -> None:
    """Serve until stdin ends."""
    async with await asyncio.start_unix_server(echo, path):
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
