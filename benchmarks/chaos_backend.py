"""A replica that can be made to fail: ``python -m benchmarks.chaos_backend --port PORT --seen FILE``.

It appends the ``x-request-id`` of every call to a file before it does anything else with it, so that what it has seen
outlives it. ``PUT /fault/NAME`` sets how calls are answered from then on: ``none``, ``slow``, ``unavailable`` (503) or
``reset`` (in the middle of the body). Being killed or stopped is done to it from outside.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import struct
from pathlib import Path
from typing import Final

import uvloop

ANSWER_S: Final = 0.005
SLOW_S: Final = 0.25
CHUNKS: Final = 8

_EVENT: Final = (
    b'data: {"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'
)
_ANSWER: Final = (
    b'{"object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"%b"}}]}'
    % (b"word " * 100)
)
_STREAM_HEAD: Final = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
)


class Backend:
    """One replica's behaviour."""

    def __init__(self, seen: Path) -> None:
        self._seen = os.open(seen, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._fault = "none"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls of one connection."""
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.split("\r\n")
        fields = dict(line.lower().split(": ", 1) for line in lines if line)
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        method, path, _ = first.split(" ")
        if method == "PUT":
            self._fault = path.removeprefix("/fault/")
        if method != "POST":
            writer.write(_whole(b"{}"))
            return True
        os.write(self._seen, fields["x-request-id"].encode() + b"\n")
        fault = self._fault
        await asyncio.sleep(SLOW_S if fault == "slow" else ANSWER_S)
        if fault == "unavailable":
            writer.write(_whole(b'{"error":{"message":"loading"}}', b"503 Service Unavailable"))
        elif b'"stream": true' in body:
            return await self._stream(writer, fault)
        elif fault == "reset":
            writer.write(_whole(_ANSWER)[:-100])
            await asyncio.sleep(0.001)  # so that it is sent
            return _reset(writer)
        else:
            writer.write(_whole(_ANSWER))
        return True

    async def _stream(self, writer: asyncio.StreamWriter, fault: str) -> bool:
        writer.write(_STREAM_HEAD)
        for number in range(CHUNKS):
            if fault == "reset" and number == CHUNKS // 2:
                return _reset(writer)
            writer.write(_chunk(_EVENT))
            await asyncio.sleep(ANSWER_S)
        writer.write(_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        return True


def _whole(body: bytes, status: bytes = b"200 OK") -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % (
        status,
        len(body),
    )
    return head + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _reset(writer: asyncio.StreamWriter) -> bool:
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def _serve(port: int, seen: Path) -> None:
    server = await asyncio.start_server(Backend(seen).serve, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seen", type=Path, required=True)
    arguments = parser.parse_args()
    uvloop.run(_serve(arguments.port, arguments.seen))


if __name__ == "__main__":
    main()
