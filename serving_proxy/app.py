"""One proxy worker: its sockets, spool, background work and orderly end.

Several workers share a port by SO_REUSEPORT, each in a process and a spool directory (slot) of its own; a
supervisor starts them. A worker that is told to stop (SIGTERM, SIGINT) stops accepting, finishes what it
has begun within ``graceful_s``, writes every record, and ends with status 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvicorn
import uvloop

from collector.spool import Durability, SpoolWriter
from servelens.clock import Clock, SystemClock
from servelens.errors import ServelensError, Unavailable
from serving_proxy.data_plane import SWEEP_S, DataPlane
from serving_proxy.health import create_application
from serving_proxy.invocation_log import log_invocation
from serving_proxy.limits import Limits, OnLogFailure
from serving_proxy.measurements import Measurements, Published, read_others, render, write_published
from serving_proxy.protocol import DataPlaneProtocol
from serving_proxy.routing import Snapshot
from serving_proxy.upstream import Upstreams

logger = logging.getLogger(__name__)

LoadSnapshot = Callable[[], Snapshot | None]

_FLUSH_S: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """One worker. Its spool is ``spool_root/slot``; ``durability`` and the spool's bounds are those of
    SpoolWriter.
    """

    spool_root: Path
    slot: str = "proxy-0"
    host: str = "127.0.0.1"
    port: int = 8000
    durability: Durability = Durability.PROCESS
    on_log_failure: OnLogFailure = "pass"
    spool_segment_bytes: int = 64 << 20
    spool_segment_age_s: float = 60.0
    spool_max_bytes: int = 8 << 30
    spool_buffer_bytes: int = 64 << 20
    limits: Limits = field(default_factory=Limits)
    refresh_s: float = 1.0
    graceful_s: float = 30.0
    log_invocations: bool = False


def serve(config: ProxyConfig, load_snapshot: LoadSnapshot) -> int:
    """Serve until told to stop; the process's exit status.

    ``load_snapshot`` gives the snapshot at the start and then, called in a thread every ``refresh_s``, a
    new one or ``None`` when nothing has changed. Raises a ServelensError when the first snapshot, the
    spool or the port is not to be had.
    """
    snapshot = load_snapshot()
    if snapshot is None:
        raise Unavailable("there is no configuration to serve", fix="Configure at least one endpoint.")
    with contextlib.closing(listen(config.host, config.port)) as listener:
        spool = open_spool(config)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run_worker(config, snapshot, load_snapshot, listener, spool, SystemClock()))
        finally:
            spool.close(_FLUSH_S)
    return 0


def open_spool(config: ProxyConfig) -> SpoolWriter:
    """The worker's spool. Raises Conflict when another process writes there, Unavailable when it cannot be used."""
    return SpoolWriter.open(
        config.spool_root / config.slot,
        durability=config.durability,
        segment_bytes=config.spool_segment_bytes,
        segment_age_s=config.spool_segment_age_s,
        max_bytes=config.spool_max_bytes,
        buffer_bytes=config.spool_buffer_bytes,
    )


def listen(host: str, port: int) -> socket.socket:
    """A bound socket that other workers can share. Raises Unavailable when the address is taken or not
    ours.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}",
            field="proxy.port",
            fix="Choose another port.",
        ) from error
    listener.setblocking(False)
    return listener


async def run_worker(
    config: ProxyConfig,
    snapshot: Snapshot,
    load_snapshot: LoadSnapshot,
    listener: socket.socket,
    spool: SpoolWriter,
    clock: Clock,
    *,
    stop: asyncio.Event | None = None,
) -> None:
    """Serve on ``listener`` until ``stop`` is set; without one, until SIGTERM or SIGINT. Flushes the spool."""
    await _Worker(config, snapshot, load_snapshot, spool, clock).run(listener, stop)


class _Server(uvicorn.Server):
    """uvicorn's server, told to stop by us: its own signal handling ends the process by the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Worker:
    def __init__(
        self,
        config: ProxyConfig,
        snapshot: Snapshot,
        load_snapshot: LoadSnapshot,
        spool: SpoolWriter,
        clock: Clock,
    ) -> None:
        loop = asyncio.get_running_loop()
        spool.bind(loop)
        self._config = config
        self._load_snapshot = load_snapshot
        self._spool = spool
        self._clock = clock
        self._snapshot_failure: str | None = None
        self._upstreams = Upstreams(loop)
        self._measurements = Measurements()
        self._plane = DataPlane(
            snapshot,
            spool,
            self._upstreams,
            self._measurements,
            config.limits,
            clock,
            on_log_failure=config.on_log_failure,
            log_line=log_invocation if config.log_invocations else None,
        )
        plane = self._plane

        class Protocol(DataPlaneProtocol):
            data_plane = plane

        app = create_application(lambda: plane.snapshot, self._status, self._metrics)
        self._server = _Server(
            uvicorn.Config(
                app,
                http=Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=max(1, round(config.graceful_s)),
            )
        )

    async def run(self, listener: socket.socket, stop: asyncio.Event | None) -> None:
        loop = asyncio.get_running_loop()
        if stop is None:
            stop = asyncio.Event()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
        stopping = loop.create_task(self._stop_when(stop))
        sweeping = loop.create_task(self._sweep())
        refreshing = loop.create_task(self._refresh())
        logger.info("proxy listening: slot=%s address=%s:%d", self._config.slot, *listener.getsockname()[:2])
        gc.collect()
        gc.freeze()  # what exists now stays: no use in looking at it again under load
        try:
            await self._server.serve(sockets=[listener])
            await self._finish()
        finally:
            for task in (stopping, sweeping, refreshing):
                task.cancel()
            await asyncio.gather(stopping, sweeping, refreshing, return_exceptions=True)
            self._upstreams.close()
        logger.info("proxy stopped: slot=%s accepted=%d", self._config.slot, self._spool.accepted)

    async def _stop_when(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._server.should_exit = True

    async def _finish(self) -> None:
        """Connections are closed; what is still live waits for a backend or for the spool."""
        if not self._server.server_state.connections:  # otherwise the time for finishing is over
            with contextlib.suppress(TimeoutError):
                drain_s = min(self._config.limits.drain_s, self._config.graceful_s)
                await asyncio.wait_for(self._plane.drained(), drain_s)
        for relay in list(self._plane.live):
            relay.stop()
        flushing = asyncio.to_thread(self._spool.flush, _FLUSH_S)
        with contextlib.suppress(Unavailable):  # said below by the spool's own numbers
            await flushing
        await asyncio.sleep(0)  # the callbacks of the last group
        for connection in list(self._server.server_state.connections):
            connection.shutdown()
        await self._publish()

    async def _sweep(self) -> None:
        """Deadlines of all connections and invocations: one timer for all is cheaper than one for each."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = self._clock.monotonic()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, DataPlaneProtocol) and connection.deadline <= now:
                    connection.on_deadline()
            self._plane.sweep()

    async def _refresh(self) -> None:
        """Swap the snapshot and publish the numbers, about once per second, off the loop."""
        while True:
            await asyncio.sleep(self._config.refresh_s)
            loading = asyncio.ensure_future(asyncio.to_thread(self._load_snapshot))
            await asyncio.wait([loading])
            error = loading.exception()  # whatever it is, the old snapshot goes on serving
            if error is not None:
                if self._snapshot_failure is None:
                    logger.warning("configuration not refreshed, the old one stays: %s", error)
                self._snapshot_failure = str(error) or type(error).__name__
            else:
                self._snapshot_failure = None
                snapshot = loading.result()
                if snapshot is not None:
                    self._plane.snapshot = snapshot
            self._upstreams.close_idle()
            await self._publish()

    async def _publish(self) -> None:
        try:
            await asyncio.to_thread(
                write_published, self._published(), self._config.spool_root / self._config.slot
            )
        except ServelensError as error:
            logger.warning("%s", error)

    def _published(self) -> Published:
        spool = self._spool
        return self._measurements.published(
            self._config.slot,
            now_us=self._clock.now_us(),
            accepted=spool.accepted,
            dropped=spool.dropped,
            pending=spool.pending,
            in_flight=len(self._plane.live),
        )

    async def _metrics(self) -> bytes:
        own = self._published()
        root, slot = self._config.spool_root, self._config.slot
        others = await asyncio.to_thread(read_others, root, slot, now_us=own.written_at_us)
        return await asyncio.to_thread(render, [own, *others])

    def _status(self) -> tuple[bool, dict[str, Any]]:
        spool = self._spool
        serves = spool.healthy or self._config.on_log_failure == "pass"
        healthy = spool.healthy and self._snapshot_failure is None
        return serves, {
            "status": "ok" if healthy else "degraded" if serves else "unavailable",
            "worker": self._config.slot,
            "endpoints": list(self._plane.snapshot.endpoints),
            "in_flight": len(self._plane.live),
            "spool": {
                "healthy": spool.healthy,
                "failure": spool.failure,
                "accepted": spool.accepted,
                "dropped": spool.dropped,
                "pending": spool.pending,
                "size_bytes": spool.size_bytes,
            },
            "snapshot": {"failure": self._snapshot_failure},
        }
