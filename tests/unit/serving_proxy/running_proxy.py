"""A real proxy worker on the test's own event loop, a raw-socket client, and the records it left."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collector.reader import SpoolReader
from collector.record import Record, decode
from collector.segment_file import Write
from collector.spool import SpoolWriter
from experiments.experiment import Experiment
from servelens.clock import SystemClock
from serving_proxy.app import ProxyConfig, listen, run_worker
from serving_proxy.endpoint import Backend, Endpoint, Overrides, Route, ServedEntity, Timeouts
from serving_proxy.limits import Limits
from serving_proxy.routing import Snapshot

CHAT = "/v1/chat/completions"
PATIENCE_S = 10.0
_LOOK_EVERY_S = 0.005


def one_entity(url: str, *more: str, timeouts: Timeouts | None = None, **fields: Any) -> Snapshot:
    """Endpoint ``chat`` with one served entity ``only``."""
    overrides = fields.pop("overrides", None) or Overrides()
    payload_limit = fields.pop("payload_limit_bytes", 1 << 20)
    backend = Backend((url, *more), timeouts=timeouts or Timeouts(), **fields)
    entity = ServedEntity("only", backend, entity_version="7", id="e-7", overrides=overrides)
    return Snapshot.of([Endpoint("chat", (entity,), (Route("only", 100),), payload_limit)])


def split(
    urls: dict[str, str],
    shares: dict[str, float],
    experiments: Iterable[Experiment] = (),
    **overrides: Overrides,
) -> Snapshot:
    """Endpoint ``chat`` with several served entities and their traffic shares."""
    entities = tuple(
        ServedEntity(name, Backend((url,)), overrides=overrides.get(name, Overrides()))
        for name, url in urls.items()
    )
    routes = tuple(Route(name, share) for name, share in shares.items())
    return Snapshot.of([Endpoint("chat", entities, routes)], experiments)


def records_in(directory: Path) -> list[Record]:
    """All records in one worker's spool, in order."""
    batch = SpoolReader(directory).read(None, max_records=1_000_000, max_bytes=1 << 40)
    assert not batch.corrupt
    return [decode(frame.payload) for frame in batch.frames]


@dataclass
class RunningProxy:
    """The worker: where it listens, what it serves next, what it recorded."""

    port: int
    directory: Path
    stop: asyncio.Event
    pending: list[Snapshot] = field(default_factory=list)
    load_failure: Exception | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def load(self) -> Snapshot | None:
        if self.load_failure is not None:
            raise self.load_failure
        return self.pending.pop() if self.pending else None

    def records(self) -> list[Record]:
        return records_in(self.directory)

    async def record(self) -> Record:
        """The one record there is; waits for it, and fails if there are more."""
        await eventually(lambda: bool(self.records()))
        (record,) = self.records()
        return record


@asynccontextmanager
async def running_proxy(
    root: Path,
    snapshot: Snapshot,
    *,
    limits: Limits | None = None,
    write: Write = os.pwritev,
    **settings: Any,
) -> AsyncIterator[RunningProxy]:
    """A worker that serves ``snapshot``; ``write`` stands in for its spool's disk."""
    listener = listen("127.0.0.1", 0)
    settings.setdefault("rate_limit_counts", root / "rate-limits")  # not in the machine's memory
    config = ProxyConfig(spool_root=root, limits=limits or Limits(), **settings)
    spool = SpoolWriter.open(
        root / config.slot,
        durability=config.durability,
        max_bytes=config.spool_max_bytes,
        buffer_bytes=config.spool_buffer_bytes,
        write=write,
    )
    proxy = RunningProxy(listener.getsockname()[1], root / config.slot, asyncio.Event())
    worker = asyncio.create_task(
        run_worker(config, snapshot, proxy.load, listener, spool, SystemClock(), stop=proxy.stop)
    )
    try:
        await eventually(lambda: worker.done() or _listens(proxy.port))
        if worker.done():
            await worker
        yield proxy
    finally:
        proxy.stop.set()
        await asyncio.wait_for(worker, PATIENCE_S)
        await asyncio.to_thread(spool.close, PATIENCE_S)


def _listens(port: int) -> bool:
    wanted = f"0100007F:{port:04X} 00000000:0000 0A"
    return wanted in Path("/proc/net/tcp").read_text()


async def eventually(condition: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    """Wait until the condition holds; fail when it does not in time."""
    for _ in range(round(patience_s / _LOOK_EVERY_S)):
        if condition():
            return
        await asyncio.sleep(_LOOK_EVERY_S)
    raise AssertionError(f"did not happen within {patience_s} s")


@dataclass
class Answer:
    """An answer off the wire. ``complete`` says whether it ended as HTTP says it must."""

    status: int
    headers: dict[str, str]
    body: bytes
    complete: bool
    chunks: list[bytes]

    def json(self) -> Any:
        return json.loads(self.body)


class RawClient:
    """One connection, spoken to in bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode("latin-1").rstrip("\r\n").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split()[1]), fields

    async def chunk(self) -> bytes:
        """One chunk of a chunked body; empty at its end."""
        async with asyncio.timeout(PATIENCE_S):
            size = int(await self.reader.readuntil(b"\r\n"), 16)
            data = await self.reader.readexactly(size + 2)
        return data[:-2]

    async def chunk_after_head(self) -> bytes:
        await self.head()
        return await self.chunk()

    async def answer(self) -> Answer:
        """The next answer to a POST or GET."""
        status, headers = await self.head()
        chunks: list[bytes] = []
        try:
            if headers.get("transfer-encoding") == "chunked":
                while piece := await self.chunk():
                    chunks.append(piece)
            elif "content-length" in headers:
                async with asyncio.timeout(PATIENCE_S):
                    chunks.append(await self.reader.readexactly(int(headers["content-length"])))
            elif status not in (204, 304):
                async with asyncio.timeout(PATIENCE_S):
                    chunks.append(await self.reader.read())
        except asyncio.IncompleteReadError as error:
            chunks.append(error.partial)
            return Answer(status, headers, b"".join(chunks), False, chunks)
        except ConnectionResetError:
            return Answer(status, headers, b"".join(chunks), False, chunks)
        return Answer(status, headers, b"".join(chunks), True, chunks)

    async def closed(self) -> bool:
        """Whether the other side closes now, without another byte."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read(1) == b""
            except ConnectionResetError:
                return True


@asynccontextmanager
async def connect(proxy: RunningProxy, **options: Any) -> AsyncIterator[RawClient]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port, **options)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


def chat(content: str = "hello world", **fields: Any) -> dict[str, Any]:
    return {"model": "chat", "messages": [{"role": "user", "content": content}], **fields}


def post(body: object, path: str = CHAT, **headers: str) -> bytes:
    """A request as bytes; ``x_session_id="s"`` becomes the header ``x-session-id``."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n{lines}"
    return f"{head}Content-Length: {len(payload)}\r\n\r\n".encode("latin-1") + payload


async def call(proxy: RunningProxy, body: object, path: str = CHAT, **headers: str) -> Answer:
    """One call on a connection of its own."""
    async with connect(proxy) as client:
        await client.send(post(body, path, **headers))
        return await client.answer()


async def get(proxy: RunningProxy, path: str) -> Answer:
    async with connect(proxy) as client:
        await client.send(f"GET {path} HTTP/1.1\r\nHost: proxy\r\n\r\n".encode())
        return await client.answer()
