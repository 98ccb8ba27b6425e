"""Open-loop load for the chaos benchmark: each call is made at its time, whatever has become of the ones before."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Final

PATH: Final = "/v1/chat/completions"
PATIENCE_S: Final = 30.0


@dataclass(slots=True)
class Call:
    """One call. ``due_s`` is counted from the beginning; ``answered_s`` is when its answer was whole (of a stream:
    when its first chunk came), from ``due_s``. ``begun`` says that the client has seen something of an answer,
    ``lag_s`` how late the call was made.
    """

    number: int
    due_s: float
    is_stream: bool
    status: int = 0
    begun: bool = False
    complete: bool = False
    lag_s: float = 0.0
    answered_s: float = PATIENCE_S
    problem: str = ""


class Load:
    """Calls at a fixed rate, every ``stream_every``-th of them a stream."""

    def __init__(self, port: int, *, rate: float, stream_every: int) -> None:
        self.calls: list[Call] = []
        self._port = port
        self._rate = rate
        self._stream_every = stream_every
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def run(self, started: float, seconds: float) -> None:
        """Make calls for so long; returns when all are over."""
        async with asyncio.TaskGroup() as running:
            for number in range(round(seconds * self._rate)):
                due = number / self._rate
                await asyncio.sleep(max(0.0, started + due - time.monotonic()))
                each = Call(number, due, number % self._stream_every == 0)
                each.lag_s = time.monotonic() - started - due
                self.calls.append(each)
                running.create_task(self._make(each, started))
        for _, writer in self._idle:
            writer.close()
            await writer.wait_closed()

    async def _make(self, each: Call, started: float) -> None:
        kept = self._idle.pop() if self._idle else None
        reader, writer = kept or await asyncio.open_connection("127.0.0.1", self._port)
        keep = False
        try:
            async with asyncio.timeout(PATIENCE_S):
                writer.write(_request(each))
                keep = await self._read(each, reader, started)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            each.problem = type(error).__name__
        if keep:
            self._idle.append((reader, writer))
        else:
            writer.close()

    async def _read(self, each: Call, reader: asyncio.StreamReader, started: float) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        each.status = int(head.split(b" ", 2)[1])
        if b"transfer-encoding: chunked" in head:
            ended = False
            while size := int(await reader.readuntil(b"\r\n"), 16):
                data = await reader.readexactly(size + 2)
                if not each.begun:
                    each.begun = True
                    each.answered_s = time.monotonic() - started - each.due_s
                ended = ended or b"[DONE]" in data
            await reader.readexactly(2)
            each.complete = ended
        else:
            length = int(head.split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
            body = await reader.readexactly(length)
            each.answered_s = time.monotonic() - started - each.due_s
            each.complete = "choices" in json.loads(body)
            each.problem = "" if each.complete else body.decode("utf-8", "replace")[:200]
        return b"connection: close" not in head


def _request(each: Call) -> bytes:
    message = {"role": "user", "content": f"call {each.number}"}
    body = json.dumps({"model": "chat", "messages": [message], "stream": each.is_stream}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
