"""A backend that answers from a script, byte for byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving_proxy.replicas import Replica
from serving_proxy.upstreams import Upstreams


class ScriptedServer:
    """Answers each request with the next of ``answers``; an empty one hangs."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.received: list[bytes] = []
        self.connections = 0
        self.close_after_each = False

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(x[15:]) for x in head.split(b"\r\n") if x.startswith(b"content-length")), 0
                )
                body = await reader.readexactly(length)
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            self.received.append(head + body)
            writer.write(self.answers.pop(0))
            if self.close_after_each:
                break
        writer.close()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[tuple[ScriptedServer, Replica]]:
    server = ScriptedServer(*answers)
    listening = await asyncio.start_server(server.accept, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    upstreams = Upstreams(asyncio.get_running_loop())
    replica = upstreams.pick((f"http://127.0.0.1:{port}/base",))
    assert replica is not None
    try:
        yield server, replica
    finally:
        upstreams.close()
        listening.close()
        await listening.wait_closed()
