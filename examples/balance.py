#!/usr/bin/env python3
"""A small balancer in front of HTTP servers on this machine, for instance one on each memory node:

    ompbind run --per numa --template -- vllm serve MODEL --port '{8001+rank}' &
    examples/balance.py 8000 8001 8002 …

Listens on the first port and passes each connection on to the server with the fewest of them; a
server that does not answer is passed over until it does. Bytes are passed on as they come, so
answers stream. The port of the server is reported for each connection on standard error. It needs
nothing but Python; nginx with `least_conn`, or vLLM's own router, does the same for production.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

HOST = "127.0.0.1"


class Balancer:
    """Which servers there are, and how many connections each has."""

    def __init__(self, ports: list[int]) -> None:
        self.connections = dict.fromkeys(ports, 0)

    async def connect(self) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter] | None:
        """Connect to the least loaded server that answers; None if none does."""
        for port in sorted(self.connections, key=lambda port: self.connections[port]):
            self.connections[port] += 1  # before waiting: others choose meanwhile
            try:
                return port, *await asyncio.open_connection(HOST, port)
            except OSError:
                self.connections[port] -= 1
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, both ways, until either end closes it."""
        server = await self.connect()
        try:
            if server is None:
                writer.write(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
                return
            port, replies, requests = server
            print(f"balance: to port {port}", file=sys.stderr, flush=True)
            ways = [asyncio.create_task(copy(reader, requests)),
                    asyncio.create_task(copy(replies, writer))]  # fmt: skip
            try:
                await ways[1]  # the server has said all
            finally:
                ways[0].cancel()
                requests.close()
                self.connections[port] -= 1
        except (OSError, asyncio.CancelledError):
            pass  # the client has gone, or this balancer is ending: asyncio would write a traceback
        finally:
            writer.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Copy what comes until it ends."""
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


async def main() -> None:
    listen, *ports = [int(word) for word in sys.argv[1:]] or [0]
    if not ports:
        raise SystemExit("usage: balance.py PORT SERVER_PORT...")
    server = await asyncio.start_server(Balancer(ports).serve, HOST, listen)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    print(f"balance: http://{HOST}:{listen}", file=sys.stderr, flush=True)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())
