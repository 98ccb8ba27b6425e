"""A backend that costs next to nothing, so that what is measured is the proxy: ``python -m
benchmarks.instant_backend``.

Answers every POST with a 600-byte chat completion at once, or, when the body asks for a stream, with 32
chunks 2 ms apart and ``[DONE]``; other gateways also ask for its health and its models. It reads no more
of HTTP than wrk, nginx, our proxy and those gateways send. Prints its port.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
from typing import Any, cast

import uvloop

CHUNKS = 32
CHUNK_PAUSE_S = 0.002


def chat_body(*, stream: bool, model: str = "chat") -> bytes:
    """The request of the benchmark, 600 bytes."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": ""}],
        "temperature": 0.7,
    }
    if stream:
        body["stream"] = True
    missing = 600 - len(json.dumps(body))
    body["messages"][0]["content"] = ("What is the capital of France, and why? " * 20)[:missing]
    return json.dumps(body).encode()


def _with_head(body: bytes) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )


def _answer() -> bytes:
    message = {"role": "assistant", "content": ""}
    answer = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "chat",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 100, "completion_tokens": 60, "total_tokens": 160},
    }
    message["content"] = ("Paris is the capital of France. " * 20)[: 600 - len(json.dumps(answer))]
    return _with_head(json.dumps(answer).encode())


_ANSWER = _answer()
_MODELS = _with_head(
    json.dumps(
        {"object": "list", "data": [{"id": "chat", "object": "model", "owned_by": "benchmark"}]}
    ).encode()
)
_EVENT = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "chat",
        "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}],
    }
).encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_LAST_CHUNK = b"\r\n0\r\n\r\n"
_STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_STREAM_CHUNK = _chunk(b"data: " + _EVENT + b"\n\n")
_STREAM_END = _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._buffer = b""
        self._transport: asyncio.Transport | None = None
        self._streams: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        for stream in self._streams:
            stream.cancel()

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            start = head.find(b"content-length:") + 15
            if start < 15:  # a GET, or a body in chunks
                is_get = head.startswith(b"get")
                last = end + 4 if is_get else self._buffer.find(_LAST_CHUNK, end) + len(_LAST_CHUNK)
                if last < end:
                    return
                self._buffer = self._buffer[last:]
                self._transport.write(_MODELS if is_get else _ANSWER)
                continue
            stop = head.find(b"\r\n", start)
            size = end + 4 + int(head[start : stop if stop >= 0 else end])
            if len(self._buffer) < size:
                return
            body, self._buffer = self._buffer[end + 4 : size], self._buffer[size:]
            if b'"stream": true' in body:
                stream = asyncio.get_running_loop().create_task(self._stream(self._transport))
                self._streams.add(stream)
                stream.add_done_callback(self._streams.discard)
            else:
                self._transport.write(_ANSWER)

    async def _stream(self, transport: asyncio.Transport) -> None:
        transport.write(_STREAM_HEAD)
        for _ in range(CHUNKS):
            transport.write(_STREAM_CHUNK)
            await asyncio.sleep(CHUNK_PAUSE_S)
        transport.write(_STREAM_END)


async def _serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
