"""The way in as a server: a thread of the collector with an event loop, a spool and a journal of its own.

It runs beside the collector's ingest, which reads its spool as it reads every worker's. When it is told to stop it finishes
what it has begun, so that the ingest can then drain a spool that nobody writes any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Final, Self

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from collector.intake.app import IntakeApp
from collector.intake.counts import Counts
from collector.intake.intake import Intake
from collector.intake.journal import Journal
from collector.intake.request_body import BodyReader, Memory
from collector.intake.rules import Door
from collector.spool import SpoolWriter
from servelens.clock import Clock
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

SLOT: Final = "intake-0"
"""The spool directory of the way in, beside those of the proxy workers."""

_BODY_S: Final = 30.0
_GRACE_S: Final = 10
_FLUSH_S: Final = 10.0
_POLL_S: Final = 0.1
_SWEEP_S: Final = 0.5
_MEMORY: Final = 96 << 20
_CONNECTIONS: Final = 1_000
_BACKLOG: Final = 1_024


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeConfig:
    """Its spool is ``spool_root/intake-0``, its journal the file ``journal``; the spool's bounds are SpoolWriter's. A
    connection on which no whole head comes for ``quiet_s`` seconds is closed.
    """

    spool_root: Path
    journal: Path
    host: str = "127.0.0.1"
    port: int = 8053
    max_body_bytes: int = 20 << 20
    join_timeout_s: float = 300.0
    window_s: float = 3_600.0
    quiet_s: float = 60.0
    segment_bytes: int = 64 << 20
    segment_age_s: float = 60.0
    max_bytes: int = 8 << 30
    min_free_bytes: int | None = None


class _Server(uvicorn.Server):
    """uvicorn's server, told to stop by us: signals are the process's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class IntakeServer:
    """Made by :meth:`open`, which holds port, spool and journal from then on; :meth:`start` begins to serve."""

    def __init__(
        self,
        config: IntakeConfig,
        door: Door,
        clock: Clock,
        listener: socket.socket,
        spool: SpoolWriter,
        journal: Journal,
    ) -> None:
        self.counts = Counts()
        self.ended = threading.Event()
        """Set when nothing more comes into the spool."""
        self.ended_well = False
        """Whether it ended because it was told to."""
        self.port = int(listener.getsockname()[1])
        self._quiet_s = config.quiet_s
        self._listener = listener
        self._spool = spool
        self._journal = journal
        self._intake = Intake(
            journal, spool, self.counts, clock, join_timeout_s=config.join_timeout_s, window_s=config.window_s
        )
        memory = Memory(max(_MEMORY, 2 * config.max_body_bytes))
        bodies = BodyReader(memory, max_bytes=config.max_body_bytes, patience_s=_BODY_S)
        self._server = _Server(
            uvicorn.Config(
                IntakeApp(self._intake, bodies, door, self.counts, clock),
                http=HttpToolsProtocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=_CONNECTIONS,
                backlog=_BACKLOG,
                timeout_keep_alive=ceil(config.quiet_s),
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._thread: threading.Thread | None = None

    @classmethod
    def open(cls, config: IntakeConfig, door: Door, clock: Clock) -> Self:
        """Raises Unavailable when the address, the spool or the journal is not to be had, and Conflict when another
        process writes the spool.
        """
        with ExitStack() as on_error:
            listener = on_error.enter_context(contextlib.closing(_listen(config.host, config.port)))
            spool = SpoolWriter.open(
                config.spool_root / SLOT,
                segment_bytes=config.segment_bytes,
                segment_age_s=config.segment_age_s,
                max_bytes=config.max_bytes,
                min_free_bytes=config.min_free_bytes,
                clock=clock,
            )
            on_error.callback(spool.close, _FLUSH_S)
            journal = Journal.open(config.journal, worker_id=spool.worker_id, next_offset=spool.next_offset)
            server = cls(config, door, clock, listener, spool, journal)
            on_error.pop_all()
        return server

    @property
    def health(self) -> tuple[bool, dict[str, object]]:
        """Whether events are taken now, and the detail for people."""
        failure = "it has ended" if self.ended.is_set() else self._spool.failure
        return failure is None, {
            "port": self.port,
            "failure": failure,
            "halves_waiting": self.counts.halves_waiting,
        }

    def start(self, stop: threading.Event) -> None:
        """Serve in a thread until ``stop`` is set."""
        self._thread = threading.Thread(target=self._run, args=(stop,), name="intake", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Wait for the thread, which has been told to stop, and let everything go."""
        if self._thread is not None:
            self._thread.join()
        self._listener.close()
        try:
            self._spool.close(_FLUSH_S)
        except Unavailable as error:
            logger.warning("%s", error)
        self._journal.close()

    def _run(self, stop: threading.Event) -> None:
        try:
            factory = self._server.config.get_loop_factory()  # uvloop's where it is installed
            with asyncio.Runner(loop_factory=factory) as runner:
                runner.run(self._serve(stop))
            self.ended_well = stop.is_set()
        finally:
            self.ended.set()

    async def _serve(self, stop: threading.Event) -> None:
        loop = asyncio.get_running_loop()
        working = loop.create_task(self._intake.run())
        stopping = loop.create_task(self._stop_when(stop, working))
        sweeping = loop.create_task(self._sweep())
        logger.info("intake listening: address=%s:%d", *self._listener.getsockname()[:2])
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            self._intake.stop()
            for task in (stopping, sweeping):
                task.cancel()
            await asyncio.gather(stopping, sweeping, return_exceptions=True)
            await working
        logger.info("intake stopped: accepted=%d", self._spool.accepted)

    async def _stop_when(self, stop: threading.Event, working: asyncio.Task[None]) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            if stop.is_set() or working.done():
                self._server.should_exit = True
                return

    async def _sweep(self) -> None:
        """Close connections on which no whole head comes, which uvicorn would keep for ever."""
        quiet: dict[HttpToolsProtocol, tuple[object, float]] = {}
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_S)
            now = loop.time()
            before, quiet = quiet, {}
            for connection in list(self._server.server_state.connections):
                if not isinstance(connection, HttpToolsProtocol):
                    continue
                cycle = connection.cycle
                if cycle is not None and not cycle.response_complete:
                    continue
                last, since = before.get(connection, (cycle, now))
                since = since if last is cycle else now
                if now - since > self._quiet_s:
                    connection.transport.close()
                else:
                    quiet[connection] = (cycle, since)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(
            _BACKLOG
        )  # from now on senders wait for the loop to start, instead of being turned away
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}",
            field="collector.intake.port",
            fix="Choose another port.",
        ) from error
    listener.setblocking(False)
    return listener
