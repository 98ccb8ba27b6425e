"""A model backend for tests: a real HTTP server that speaks OpenAI's wire format and misbehaves on demand.

In a test on an event loop::

    async with OpenAIBackend() as backend:
        backend.script.append(Behaviour(status=503))    # the next call only
        backend.behaviour = Behaviour(delay_s=0.2)      # all others
        backend.url, backend.received

``BackendThread`` runs the same server beside synchronous code, and ``python -m tests.backends --port 0`` in
a process of its own (it prints its address). A call can also ask for its own fault: body field ``"fault"``
with the fields of :class:`Behaviour`, for callers that cannot reach this object.

Chat, completions, embeddings, ``/invocations`` (chat and MLflow scoring bodies), ``/v1/models`` and
``/health`` are served.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import socket
import struct
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

_SCORING_INPUTS = ("dataframe_split", "dataframe_records", "instances", "inputs")


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How one call is answered. The defaults are a healthy backend.

    ``raw`` replaces the whole answer by these bytes. ``reset_after_chunks`` (streams), ``hang_after_chunks``
    and ``close_after_chunks`` count content chunks sent before the fault; ``reset_before_answer`` and
    ``close_before_answer`` take the request and send nothing. ``declared_length`` lies in Content-Length.
    ``close_delimited`` sends neither a length nor chunks. ``close_quietly`` closes the kept-alive connection
    after the answer without having announced it. ``stop_before_done`` ends a stream without ``[DONE]``,
    ``linger_after_done_s`` keeps it open after it.
    """

    status: int = 200
    delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    content: str | None = None
    chunks: int = 8
    body: bytes | None = None
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    raw: bytes | None = None
    reset_before_answer: bool = False
    close_before_answer: bool = False
    reset_after_chunks: int | None = None
    close_after_chunks: int | None = None
    hang_after_chunks: int | None = None
    hang: bool = False
    declared_length: int | None = None
    close_delimited: bool = False
    chunked: bool = False
    close_quietly: bool = False
    trailing: bytes = b""
    stop_before_done: bool = False
    linger_after_done_s: float = 0.0
    error_in_stream_after: int | None = None
    finish_reason: str = "stop"


@dataclass(frozen=True, slots=True)
class Received:
    """One request as the backend got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int

    def json(self) -> Any:
        return json.loads(self.body)


class OpenAIBackend:
    """The server. ``respond`` decides per call when given; else ``script`` is used up, then ``behaviour``."""

    def __init__(
        self,
        behaviour: Behaviour | None = None,
        *,
        respond: Callable[[Received], Behaviour] | None = None,
        model: str = "test-model",
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.behaviour = behaviour or Behaviour()
        self.script: deque[Behaviour] = deque()
        self.respond = respond
        self.model = model
        self.received: list[Received] = []
        self.connections = 0
        self.bytes_sent = 0
        self.disconnects = 0
        self._host = host
        self.port = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening and cut every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    async def __aenter__(self) -> OpenAIBackend:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        number = self.connections
        try:
            while (request := await _read_request(reader, number)) is not None:
                self.received.append(request)
                if not await self._answer(request, reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.disconnects += 1
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(ConnectionError, OSError):
                writer.close()

    def _choose(self, request: Received, body: dict[str, Any]) -> Behaviour:
        if "fault" in body:
            return replace(self.behaviour, **body["fault"])
        if self.respond is not None:
            return self.respond(request)
        return self.script.popleft() if self.script else self.behaviour

    async def _answer(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; False when the connection is finished."""
        try:
            parsed = json.loads(request.body) if request.body else {}
        except ValueError:
            parsed = None
        body = parsed if isinstance(parsed, dict) else {}
        behaviour = self._choose(request, body) if request.method == "POST" else Behaviour()
        if behaviour.delay_s:
            await asyncio.sleep(behaviour.delay_s)
        if behaviour.hang:
            await reader.read()  # until the other side gives up
            return False
        if behaviour.reset_before_answer:
            return _reset(writer)
        if behaviour.close_before_answer:
            return False
        if behaviour.raw is not None:
            await self._send(writer, behaviour.raw)
            return False
        if request.method == "GET":
            return await self._whole(writer, _get(request.path, self.model), Behaviour())
        if parsed is None:
            answer = _error(400, "the body is not JSON")
            return await self._whole(writer, answer, replace(behaviour, status=400))
        if behaviour.body is not None:
            return await self._whole(writer, behaviour.body, behaviour)
        if behaviour.status >= 400:
            return await self._whole(writer, _error(behaviour.status, "scripted failure"), behaviour)
        if body.get("stream"):
            return await self._stream(reader, writer, body, behaviour, chat="messages" in body)
        return await self._whole(writer, _complete(request.path, body, behaviour, self.model), behaviour)

    async def _whole(self, writer: asyncio.StreamWriter, answer: bytes, behaviour: Behaviour) -> bool:
        lines = [("content-type", behaviour.content_type), *behaviour.headers]
        if behaviour.chunked:
            lines.append(("transfer-encoding", "chunked"))
            half = max(1, len(answer) // 2)
            payload = b"".join(_chunk(part) for part in (answer[:half], answer[half:]) if part) + b"0\r\n\r\n"
        elif behaviour.close_delimited:
            payload = answer
        else:
            length = len(answer) if behaviour.declared_length is None else behaviour.declared_length
            lines.append(("content-length", str(length)))
            payload = answer
        await self._send(writer, _head(behaviour.status, lines) + payload + behaviour.trailing)
        lied = behaviour.declared_length is not None
        return not (behaviour.close_delimited or behaviour.close_quietly or lied)

    async def _stream(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        body: dict[str, Any],
        behaviour: Behaviour,
        *,
        chat: bool,
    ) -> bool:
        framed = _chunk if not behaviour.close_delimited else bytes
        lines = [("content-type", "text/event-stream; charset=utf-8"), *behaviour.headers]
        if not behaviour.close_delimited:
            lines.append(("transfer-encoding", "chunked"))
        await self._send(writer, _head(200, lines))
        words = _pieces(_content(body, behaviour), behaviour.chunks)
        for number, word in enumerate(words):
            if number == behaviour.reset_after_chunks:
                return _reset(writer)
            if number == behaviour.close_after_chunks:
                return False
            if number == behaviour.hang_after_chunks:
                await reader.read()
                return False
            if number == behaviour.error_in_stream_after:
                event = b"data: " + _error(500, "the model failed in the middle") + b"\n\n"
                await self._send(writer, framed(event) + (b"" if behaviour.close_delimited else b"0\r\n\r\n"))
                return not behaviour.close_delimited
            await self._send(writer, framed(_event(body, self.model, word, number, None, chat=chat)))
            if behaviour.chunk_delay_s:
                await asyncio.sleep(behaviour.chunk_delay_s)
        await self._send(
            writer, framed(_event(body, self.model, "", len(words), behaviour.finish_reason, chat=chat))
        )
        if (body.get("stream_options") or {}).get("include_usage"):
            await self._send(writer, framed(_usage_event(body, self.model, len(words), chat=chat)))
        if not behaviour.stop_before_done:
            await self._send(writer, framed(b"data: [DONE]\n\n"))
        if behaviour.linger_after_done_s:
            await asyncio.sleep(behaviour.linger_after_done_s)
        if behaviour.close_delimited:
            return False
        await self._send(writer, b"0\r\n\r\n" + behaviour.trailing)
        return not behaviour.close_quietly

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if writer.is_closing():
            raise ConnectionResetError
        writer.write(data)
        await writer.drain()
        self.bytes_sent += len(data)


async def _read_request(reader: asyncio.StreamReader, connection: int) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body, connection)


def _reset(writer: asyncio.StreamWriter) -> bool:
    """Send a TCP reset instead of an orderly end."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


def _head(status: int, lines: list[tuple[str, str]]) -> bytes:
    phrase = HTTPStatus(status).phrase
    fields = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"HTTP/1.1 {status} {phrase}\r\n{fields}\r\n".encode("latin-1")


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _dumps(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _error(status: int, message: str) -> bytes:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return _dumps({"error": {"message": message, "type": kind, "param": None, "code": status}})


def _get(path: str, model: str) -> bytes:
    if path.endswith("/models"):
        return _dumps({"object": "list", "data": [{"id": model, "object": "model", "owned_by": "tests"}]})
    return _dumps({"status": "ok"})


def _last_text(body: dict[str, Any]) -> str:
    if "messages" in body:
        content = body["messages"][-1].get("content") if body["messages"] else ""
        return content if isinstance(content, str) else json.dumps(content)
    prompt = body.get("prompt", "")
    return prompt if isinstance(prompt, str) else json.dumps(prompt)


def _content(body: dict[str, Any], behaviour: Behaviour) -> str:
    return behaviour.content if behaviour.content is not None else f"echo: {_last_text(body)}"


def _pieces(text: str, count: int) -> list[str]:
    """The text in ``count`` pieces of almost equal length (empty ones where it is too short)."""
    edges = [round(number * len(text) / count) for number in range(count + 1)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


def _usage(body: dict[str, Any], tokens: int) -> dict[str, int]:
    prompt = len(_last_text(body).split())
    return {"prompt_tokens": prompt, "completion_tokens": tokens, "total_tokens": prompt + tokens}


def _complete(path: str, body: dict[str, Any], behaviour: Behaviour, model: str) -> bytes:
    scoring = next(
        (key for key in ("dataframe_split", "dataframe_records", "instances", "inputs") if key in body), None
    )
    if scoring is not None:
        rows = body[scoring]["data"] if scoring == "dataframe_split" else body[scoring]
        return _dumps({"predictions": [1.0] * len(rows)})
    if path.endswith("/embeddings"):
        return _dumps({"object": "list", "data": [{"index": 0, "embedding": [0.0, 1.0]}], "model": model})
    text = _content(body, behaviour)
    usage = _usage(body, len(text.split()))
    name = body.get("model", model)
    if "messages" in body:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": behaviour.finish_reason}
        kind = "chat.completion"
    else:
        choice = {"index": 0, "text": text, "finish_reason": behaviour.finish_reason}
        kind = "text_completion"
    return _dumps(
        {
            "id": "chatcmpl-test",
            "object": kind,
            "created": 1,
            "model": name,
            "choices": [choice],
            "usage": usage,
        }
    )


def _event(
    body: dict[str, Any], model: str, text: str, number: int, finish_reason: str | None, *, chat: bool
) -> bytes:
    if chat:
        delta: dict[str, Any] = {"role": "assistant", "content": text} if number == 0 else {"content": text}
        if finish_reason is not None:
            delta = {}
        choice: dict[str, Any] = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        kind = "chat.completion.chunk"
    else:
        choice = {"index": 0, "text": text, "finish_reason": finish_reason}
        kind = "text_completion"
    name = body.get("model", model)
    event = {"id": "chatcmpl-test", "object": kind, "created": 1, "model": name, "choices": [choice]}
    return b"data: " + _dumps(event) + b"\n\n"


def _usage_event(body: dict[str, Any], model: str, tokens: int, *, chat: bool) -> bytes:
    event = {
        "id": "chatcmpl-test",
        "object": "chat.completion.chunk" if chat else "text_completion",
        "created": 1,
        "model": body.get("model", model),
        "choices": [],
        "usage": _usage(body, tokens),
    }
    return b"data: " + _dumps(event) + b"\n\n"


@dataclass(slots=True)
class _Running:
    backend: OpenAIBackend
    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event = field(default_factory=asyncio.Event)


@contextmanager
def BackendThread(backend: OpenAIBackend | None = None) -> Iterator[OpenAIBackend]:
    """Run a backend on an event loop in a thread of its own, for synchronous tests."""
    server = backend or OpenAIBackend()
    started: list[_Running] = []
    ready = threading.Event()

    async def main() -> None:
        async with server:
            running = _Running(server, asyncio.get_running_loop())
            started.append(running)
            ready.set()
            await running.stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),), name="test-backend")
    thread.start()
    if not ready.wait(10):
        raise RuntimeError("the test backend did not start")
    try:
        yield server
    finally:
        started[0].loop.call_soon_threadsafe(started[0].stop.set)
        thread.join()


@asynccontextmanager
async def backends(count: int) -> AsyncIterator[list[OpenAIBackend]]:
    """Several healthy backends at once."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(OpenAIBackend(model=f"model-{number}")) for number in range(count)
        ]


async def _serve(host: str, port: int, delay_s: float) -> None:
    async with OpenAIBackend(Behaviour(delay_s=delay_s), host=host, port=port) as backend:
        print(backend.url, flush=True)  # noqa: T201 - the address is this command's output
        await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="An OpenAI-shaped test backend")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-s", type=float, default=0.0)
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(arguments.host, arguments.port, arguments.delay_s))


if __name__ == "__main__":
    main()
