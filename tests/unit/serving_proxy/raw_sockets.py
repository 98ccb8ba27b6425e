"""A backend that sends scripted bytes, and a look at what a worker has been left with."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from tests.unit.serving_proxy.running_proxy import CHAT, RunningProxy, chat, eventually, get, post

BODY = b'{"object":"chat.completion","choices":[{"message":{"role":"assistant","content":"right"}}]}'
HELLO = post(chat("hello")).partition(b"\r\n\r\n")[2]
SMUGGLED = post(chat("SMUGGLED"))
_ESTABLISHED, _CLOSE_WAIT = "01", "08"
_JSON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


class Then(Enum):
    """What the scripted backend does between and after bytes."""

    CLOSE = "close the connection"
    RESET = "reset the connection"
    END = "send nothing more, go on reading"
    HANG = "do nothing until the other side closes"
    PAUSE = "let what was sent arrive by itself"


Step = bytes | Then


def answer_with(fields: bytes, body: bytes = b"") -> bytes:
    """A 200 with JSON and further header lines (without their last line end)."""
    return _JSON + fields + b"\r\n\r\n" + body


def sized(body: bytes = BODY) -> bytes:
    return answer_with(b"content-length: %d" % len(body), body)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def request(fields: bytes, body: bytes = b"", *, start: bytes = b"POST %b HTTP/1.1" % CHAT.encode()) -> bytes:
    """A request whose header lines are given, ``Host`` apart."""
    return start + b"\r\nHost: p\r\n" + fields + b"\r\n\r\n" + body


@dataclass
class RawBackend:
    """Answers the ``scripts`` one request after the other, then ``sized()``. ``requests`` are (connection, head,
    body); a script is sent before the body is read if ``early``.
    """

    scripts: list[Sequence[Step]]
    early: bool = False
    url: str = ""
    connections: int = 0
    requests: list[tuple[int, bytes, bytes]] = field(default_factory=list)
    sent: int = 0
    at_work: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                script = self.scripts.pop(0) if self.scripts else [sized()]
                if self.early and script != [sized()]:
                    self.requests.append((number, head, b""))
                else:
                    fields = dict(line.lower().partition(b":")[::2] for line in head.split(b"\r\n"))
                    body = await reader.readexactly(int(fields[b"content-length"]))
                    self.requests.append((number, head, body))
                self.at_work += 1
                try:
                    for step in script:
                        if not await self._do(step, reader, writer):
                            return
                finally:
                    self.at_work -= 1
        writer.close()

    async def _do(self, step: Step, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if isinstance(step, bytes):
            writer.write(step)
            await writer.drain()
            self.sent += len(step)
        elif step is Then.PAUSE:
            await asyncio.sleep(0.02)
        elif step is Then.END:
            writer.write_eof()
        elif step is Then.HANG:
            await reader.read()
            return False
        else:
            if step is Then.RESET:
                own = writer.get_extra_info("socket")
                own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.close()
            return False
        return True


@asynccontextmanager
async def raw_backend(*scripts: Sequence[Step], early: bool = False) -> AsyncIterator[RawBackend]:
    backend = RawBackend(list(scripts), early)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(backend.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=1 << 24)
    backend.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield backend
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@dataclass(frozen=True)
class Socket:
    """One line of /proc/net/tcp: ports, state, bytes not yet sent or acknowledged, bytes not yet read."""

    local: int
    remote: int
    state: str
    unsent: int
    unread: int


def sockets() -> list[Socket]:
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        unsent, unread = (int(number, 16) for number in queues.split(":"))
        found.append(
            Socket(int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16), state, unsent, unread)
        )
    return found


def client_connections(proxy: RunningProxy) -> int:
    """Connections of clients that the worker still holds."""
    held = (_ESTABLISHED, _CLOSE_WAIT)
    return sum(1 for each in sockets() if each.local == proxy.port and each.state in held)


async def assert_sound(proxy: RunningProxy) -> None:
    """The worker lives, has nothing in flight and holds no connection of a client that has gone."""
    for _ in range(50):
        ready = await get(proxy, "/health/ready")
        assert ready.status == 200
        if not ready.json()["in_flight"]:
            break
        await asyncio.sleep(0.1)
    assert ready.json()["in_flight"] == 0
    await eventually(lambda: client_connections(proxy) == 0)
