"""The addresses of backends with their pools of connections. TLS verifies certificate and host name."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from serving_proxy.repeated_head import RepeatedHead
from serving_proxy.replica_health import ReplicaHealth
from serving_proxy.upstream import AnswerHead, Connection, Loss

if TYPE_CHECKING:
    from serving_proxy.replica_group import ReplicaGroup

_BARE_BASES: Final = {"openai": b"/v1", "ai21labs": b"/studio/v1"}


def key_fields(api: str, api_key: str | None) -> list[tuple[bytes, bytes]]:
    """How an API wants to be given its key."""
    if api_key is None:
        return []
    key = api_key.encode()
    return [(b"x-api-key", key) if api == "anthropic" else (b"authorization", b"Bearer " + key)]


class Replica:
    """One address of a backend with its idle connections and the number of requests outstanding.

    ``awaited_by`` has those who are told, soon after, when one of them is over.
    """

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, max_idle: int) -> None:
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        host = parts.hostname or ""
        self.url = url
        self.authority = parts.netloc.rpartition("@")[2].encode()
        self.base_path = parts.path.rstrip("/").encode()
        self.outstanding = 0
        self.health = ReplicaHealth()
        self.awaited_by: dict[ReplicaGroup, Callable[[ReplicaGroup], None]] = {}
        self.repeated: RepeatedHead[AnswerHead] | None = None
        self._host = host
        self._port = parts.port or (443 if tls else 80)
        self._ssl = ssl.create_default_context() if tls else None
        self._loop = loop
        self._max_idle = max_idle
        self._starts: dict[tuple[bytes, str, str | None], bytes] = {}
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._now_s = loop.time()  # as of the last look at who is idle

    def start_of(self, operation: bytes, api: str, api_key: str | None) -> bytes:
        """The head of a request up to what differs between invocations.

        An OpenAI-compatible server at a bare address serves below ``/v1``. Compression is refused, because chunks
        are passed on and kept as they come.
        """
        start = self._starts.get((operation, api, api_key))
        if start is None:
            path = (self.base_path or _BARE_BASES.get(api, b"")) + operation
            start = b"POST %b HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\n" % (path, self.authority)
            start += b"".join([b"%b: %b\r\n" % field for field in key_fields(api, api_key)])
            self._starts[operation, api, api_key] = start
        return start

    def take(self) -> Connection | None:
        """The idle connection used last, which is the one least likely to have been closed over there."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.is_open():
                return connection
        return None

    async def connect(self, timeout_s: float) -> Connection | tuple[Loss, str]:
        """A new connection, or how it failed."""
        try:
            async with asyncio.timeout(timeout_s):
                _, connection = await self._loop.create_connection(
                    lambda: Connection(self), self._host, self._port, ssl=self._ssl
                )
        except TimeoutError:
            return Loss.SLOW_CONNECT, f"within {timeout_s:g} s"
        except (OSError, UnicodeError) as error:  # the latter for names that cannot be looked up
            return Loss.REFUSED, str(error)
        self._all.add(connection)
        return connection

    def freed(self) -> None:
        """One request fewer is outstanding, and somebody waits for that."""
        for group, tell in self.awaited_by.items():
            self._loop.call_soon(tell, group)

    def put(self, connection: Connection) -> None:
        if len(self._idle) >= self._max_idle:
            connection.abandon()
            return
        connection.idle_since = self._now_s
        self._idle.append(connection)

    def forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close_idle(self, idle_s: float = 0.0) -> None:
        """Close connections that have been idle for so long, give or take the time between two calls of this."""
        self._now_s = self._loop.time()
        before = self._now_s - idle_s
        for connection in [each for each in self._idle if each.idle_since <= before]:
            connection.abandon()

    def close(self) -> None:
        """Close every connection, busy ones too."""
        for connection in list(self._all):
            connection.abandon()
