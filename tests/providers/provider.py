"""A real HTTP server on an event loop, in front of one provider's rules.

A subclass says what a call is answered with; this module reads requests, writes answers and streams them in pieces of
``piece_bytes``, so that events are cut through.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar

KEY = "provider-key"


class Refusal(Exception):
    """The provider answers with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Call:
    """One request as the provider got it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(slots=True)
class Given:
    """An answer: ``stream`` is the body of a stream of events."""

    body: bytes
    status: int = 200
    stream: bool = False
    headers: dict[str, str] = field(default_factory=dict)


class Provider(ABC):
    """The server; ``received`` are the calls that passed the provider's rules, ``refused`` why the others did not."""

    def __init__(self, *, piece_bytes: int = 37) -> None:
        self.piece_bytes = piece_bytes
        self.received: list[Call] = []
        self.refused: list[str] = []
        self.script: list[Given] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def answer(self, call: Call) -> Given:
        """What a call is answered with. Raises Refusal."""

    @abstractmethod
    def error(self, refusal: Refusal) -> bytes:
        """The body of an error."""

    async def __aenter__(self) -> Provider:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (call := await _read(reader)) is not None:
                await self._respond(call, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._tasks.discard(task)
            with contextlib.suppress(ConnectionError):
                writer.close()

    async def _respond(self, call: Call, writer: asyncio.StreamWriter) -> None:
        try:
            given = self.answer(call)
            self.received.append(call)
        except Refusal as refusal:
            self.refused.append(str(refusal))
            given = Given(self.error(refusal), refusal.status)
        if self.script:
            given = self.script.pop(0)
        phrase = HTTPStatus(given.status).phrase if given.status in HTTPStatus._value2member_map_ else "Error"
        kind = "text/event-stream" if given.stream else "application/json"
        lines = {"content-type": kind, "request-id": "req_provider", **given.headers}
        if given.stream:
            lines["transfer-encoding"] = "chunked"
        else:
            lines["content-length"] = str(len(given.body))
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        writer.write(f"HTTP/1.1 {given.status} {phrase}\r\n{head}\r\n".encode())
        if not given.stream:
            writer.write(given.body)
        else:
            for start in range(0, len(given.body), self.piece_bytes):
                piece = given.body[start : start + self.piece_bytes]
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
                await asyncio.sleep(0)
            writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Call | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *rest = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers: dict[str, str] = {}
    for line in rest:
        name, _, value = line.partition(":")
        name = name.lower()
        if name in headers and name in ("anthropic-version", "x-api-key", "authorization", "content-length"):
            value = f"{headers[name]}, {value.strip()}"  # sent twice, which no provider takes
        headers[name] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Call(method, path, headers, body)


def parsed(call: Call) -> dict[str, Any]:
    """The body, which must be a JSON object."""
    try:
        value = json.loads(call.body)
    except ValueError as error:
        raise Refusal(400, f"The body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(400, "The body is not a JSON object")
    return value


def only(value: Any, where: str, required: str, optional: str = "") -> dict[str, Any]:
    """``value``, an object that has the required fields, perhaps the optional ones, and no others."""
    if not isinstance(value, dict):
        raise Refusal(400, f"{where}: Input should be an object")
    needed = set(required.split())
    for name in sorted(needed - set(value)):
        raise Refusal(400, f"{where}.{name}: Field required")
    for name in sorted(set(value) - needed - set(optional.split())):
        raise Refusal(400, f"{where}.{name}: Extra inputs are not permitted")
    return value


def expect(condition: bool, message: str, status: int = 400) -> None:
    """Refuse the call unless ``condition`` holds."""
    if not condition:
        raise Refusal(status, message)


P = TypeVar("P", bound=Provider)


@contextmanager
def in_thread(provider: P) -> Iterator[P]:
    """The provider on a loop of its own, beside synchronous code."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(provider.__aenter__(), loop).result(10)
        yield provider
        asyncio.run_coroutine_threadsafe(provider.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
