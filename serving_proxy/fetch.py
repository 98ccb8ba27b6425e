"""One small exchange with a backend apart from any invocation: a health check, a model's metadata.

It uses the connections of :mod:`serving_proxy.upstream`, so that a server sees one client. Invariant: a fetch ends
within its time-out, keeps a bounded body, and leaves no connection busy, also when it is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final, NamedTuple

from servelens.errors import Unavailable
from serving_proxy.replicas import Replica
from serving_proxy.upstream import AnswerHead, Connection, Fields, Loss

_MAX_BODY_BYTES: Final = 1 << 20


class Fetched(NamedTuple):
    """An answer of any status. ``headers`` has lower-case names."""

    status: int
    headers: Fields
    body: bytes


async def fetch(
    replica: Replica,
    method: bytes,
    path: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
    timeout_s: float = 5.0,
    *,
    body: bytes = b"",
    max_body_bytes: int = _MAX_BODY_BYTES,
) -> Fetched:
    """Ask one replica for ``path``, which is the whole request target (``replica.base_path`` is not put before it).

    Not for HEAD, whose answers have a length and no body. Raises Unavailable when there is no whole HTTP answer
    within ``timeout_s`` seconds or its body is longer than ``max_body_bytes``; a status is never an error here.
    """
    head = b"%b %b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\n" % (method, path, replica.authority)
    for field in headers:
        head += b"%b: %b\r\n" % field
    if body or method not in (b"GET", b"DELETE"):
        head += b"content-length: %d\r\n" % len(body)
    request = head + b"\r\n" + body
    try:
        async with asyncio.timeout(timeout_s):
            kept_alive = replica.take()
            if kept_alive is not None:
                exchange = _Exchange(max_body_bytes)
                answer = await exchange.run(kept_alive, request)
                if not isinstance(answer, _Lost):
                    return answer
                if answer.loss is not Loss.STALE:
                    raise Unavailable(f"{replica.url} {answer}.")
            connected = await replica.connect(timeout_s)
            if not isinstance(connected, Connection):
                raise Unavailable(f"{replica.url} {_Lost(*connected)}.")
            answer = await _Exchange(max_body_bytes).run(connected, request)
    except TimeoutError as error:
        raise Unavailable(f"{replica.url} did not answer within {timeout_s:g} s.") from error
    if isinstance(answer, _Lost):
        raise Unavailable(f"{replica.url} {answer}.")
    return answer


class _Lost(NamedTuple):
    loss: Loss
    detail: str

    def __str__(self) -> str:
        return f"{self.loss.value} ({self.detail})"


class _Exchange:
    """Listens to one answer."""

    def __init__(self, max_body_bytes: int) -> None:
        self._left = max_body_bytes
        self._connection: Connection | None = None
        self._status = 0
        self._fields: Fields = {}
        self._pieces: list[bytes] = []
        self._done: asyncio.Future[Fetched | _Lost] = asyncio.get_running_loop().create_future()

    async def run(self, connection: Connection, request: bytes) -> Fetched | _Lost:
        connection.send(request, self)
        try:
            return await self._done
        finally:
            if self._connection is not None:
                self._connection.abandon()

    def on_sent(self, connection: Connection) -> None:
        self._connection = connection

    def on_head(self, head: AnswerHead, length: int | None) -> None:
        self._status = head.status
        self._fields = head.fields

    def on_whole(self, head: AnswerHead, body: bytes) -> None:
        self.on_head(head, len(body))
        self.on_data(body)
        self.on_end()

    def on_data(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left >= 0:
            self._pieces.append(data)
        elif self._connection is not None:
            self._connection.abandon()
            self._end(_Lost(Loss.INVALID, "the answer is too long"))

    def on_chunk(self, data: bytes, framed: bytes) -> None:
        self.on_data(data)

    def on_end(self) -> None:
        self._end(Fetched(self._status, self._fields, b"".join(self._pieces)))

    def on_lost(self, loss: Loss, detail: str) -> None:
        self._end(_Lost(loss, detail))

    def _end(self, outcome: Fetched | _Lost) -> None:
        self._connection = None
        if not self._done.done():
            self._done.set_result(outcome)
