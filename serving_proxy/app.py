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
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import uvicorn
import uvloop
from fastapi import APIRouter, Depends

from collector.spool import Durability, SpoolWriter
from servelens.clock import Clock, SystemClock
from servelens.errors import ServelensError, Unavailable
from serving_proxy.access import require
from serving_proxy.admission import Admission
from serving_proxy.data_plane import SWEEP_S, DataPlane
from serving_proxy.feedback.api import create_feedback_router
from serving_proxy.feedback.intake import FeedbackIntake
from serving_proxy.guardrails.safety import SafetyChecks
from serving_proxy.health import create_application
from serving_proxy.health_checks import HealthChecks
from serving_proxy.invocation_log import log_invocation
from serving_proxy.kserve_api import create_kserve_router
from serving_proxy.limits import Limits, OnLogFailure
from serving_proxy.measurements import Measurements
from serving_proxy.prometheus_text import render
from serving_proxy.protocol import DataPlaneProtocol
from serving_proxy.publication import Published, read_others, write_published
from serving_proxy.rate_limits.redis_counts import RedisCounts
from serving_proxy.rate_limits.shared_table import SharedTable, counts_path
from serving_proxy.routing import Snapshot
from serving_proxy.upstreams import Upstreams
from serving_proxy.watched import watch_parts

logger = logging.getLogger(__name__)

LoadSnapshot = Callable[[], Snapshot | None]


class Parts(NamedTuple):
    """What further routes of a worker can be made of: what it serves, and the numbers of all live workers."""

    slot: str
    snapshot: Callable[[], Snapshot]
    published: Callable[[], Awaitable[list[Published]]]


Mount = Callable[[Parts], Sequence[APIRouter]]

_FLUSH_S: Final = 10.0
_GC_THRESHOLDS: Final = (20_000, 20, 20)
"""An invocation leaves no cycles, so there is little for the collector to find."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyConfig:
    """One worker. Its spool is ``spool_root/slot``; ``durability`` and the spool's bounds are those of
    SpoolWriter. ``rate_limit_counts`` is the file that the workers of a machine count in; by default one of their
    own in memory. ``scorer_url`` is asked where an endpoint has the guardrail ``safety``.
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
    spool_min_free_bytes: int | None = None
    limits: Limits = field(default_factory=Limits)
    refresh_s: float = 0.25
    publish_s: float = 1.0
    graceful_s: float = 30.0
    log_invocations: bool = False
    rate_limit_url: str | None = field(default=None, repr=False)
    rate_limit_counts: Path | None = None
    scorer_url: str = "http://127.0.0.1:8054"


def serve(
    config: ProxyConfig,
    load_snapshot: LoadSnapshot,
    mount: Mount | None = None,
    clock: Clock | None = None,
) -> int:
    """Serve until told to stop; the process's exit status. ``mount`` makes routes beside the data plane's.

    ``load_snapshot`` gives the snapshot at the start and then, called in a thread every ``refresh_s``, a
    new one or ``None`` when nothing has changed. Raises a ServelensError when the first snapshot, the
    spool or the port is not to be had.
    """
    snapshot = load_snapshot()
    if snapshot is None:
        raise Unavailable("there is no configuration to serve", fix="Configure at least one endpoint.")
    with contextlib.closing(listen(config.host, config.port)) as listener:
        clock = clock or SystemClock()
        spool = open_spool(config, clock)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run_worker(config, snapshot, load_snapshot, listener, spool, clock, mount=mount))
        finally:
            spool.close(_FLUSH_S)
    return 0


def open_spool(config: ProxyConfig, clock: Clock | None = None) -> SpoolWriter:
    """The worker's spool. Raises Conflict when another process writes there, Unavailable when it cannot be used."""
    return SpoolWriter.open(
        config.spool_root / config.slot,
        durability=config.durability,
        segment_bytes=config.spool_segment_bytes,
        segment_age_s=config.spool_segment_age_s,
        max_bytes=config.spool_max_bytes,
        buffer_bytes=config.spool_buffer_bytes,
        min_free_bytes=config.spool_min_free_bytes,
        clock=clock,
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
    mount: Mount | None = None,
) -> None:
    """Serve on ``listener`` until ``stop`` is set; without one, until SIGTERM or SIGINT. Flushes the spool."""
    await _Worker(config, snapshot, load_snapshot, spool, clock, mount).run(listener, stop)


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
        mount: Mount | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        spool.bind(loop)
        self._config = config
        self._load_snapshot = load_snapshot
        self._spool = spool
        self._clock = clock
        self._snapshot_failure: str | None = None
        self._upstreams = Upstreams(loop, clock)
        self._checks = HealthChecks(self._upstreams)
        self._measurements = Measurements()
        counts = config.rate_limit_counts or counts_path(config.spool_root)
        self._admission = Admission(
            lambda: SharedTable.open(counts, config.slot),
            clock,
            RedisCounts(config.rate_limit_url, clock) if config.rate_limit_url else None,
        )
        self._safety = SafetyChecks(config.scorer_url, loop, clock, self._measurements)
        self._plane = DataPlane(
            snapshot,
            spool,
            self._upstreams,
            self._measurements,
            config.limits,
            clock,
            self._admission,
            self._safety,
            on_log_failure=config.on_log_failure,
            log_line=log_invocation if config.log_invocations else None,
        )
        plane = self._plane
        watch_parts(self._measurements, plane, self._upstreams)

        class Protocol(DataPlaneProtocol):
            data_plane = plane

        parts = Parts(config.slot, lambda: plane.snapshot, self._all_published)
        invoke = Depends(require("invoke", lambda: plane.snapshot.keys, clock))
        kserve = create_kserve_router(parts.snapshot, self._upstreams, lambda: self._status()[0], [invoke])
        feedback = create_feedback_router(
            FeedbackIntake(parts.snapshot, spool, self._measurements, config.limits, clock),
            lambda: plane.snapshot.keys,
            clock,
        )
        routers = [kserve, feedback, *(() if mount is None else mount(parts))]
        app = create_application(lambda: plane.snapshot, self._status, self._metrics, clock, routers)
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
        publishing = loop.create_task(self._keep_publishing())
        self._follow(self._plane.snapshot)
        logger.info("proxy listening: slot=%s address=%s:%d", self._config.slot, *listener.getsockname()[:2])
        gc.collect()
        gc.freeze()  # what exists now stays: no use in looking at it again under load
        gc.set_threshold(*_GC_THRESHOLDS)
        try:
            await self._server.serve(sockets=[listener])
            await self._finish()
        finally:
            tasks = (stopping, sweeping, refreshing, publishing)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._checks.close()
            self._upstreams.close()
            self._safety.close()
            await self._admission.close()
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
        """Swap the snapshot, off the loop, a few times a second."""
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
                    self._follow(snapshot)

    def _follow(self, snapshot: Snapshot) -> None:
        endpoints = snapshot.endpoints.values()
        self._upstreams.follow(endpoints)
        self._checks.follow(endpoints)

    async def _keep_publishing(self) -> None:
        """Publish the numbers about once a second."""
        while True:
            await asyncio.sleep(self._config.publish_s)
            self._upstreams.tidy()
            self._safety.tidy()
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
            live=self._plane.live,
        )

    async def _all_published(self) -> list[Published]:
        own = self._published()
        root, slot = self._config.spool_root, self._config.slot
        return [own, *await asyncio.to_thread(read_others, root, slot, now_us=own.written_at_us)]

    async def _metrics(self) -> bytes:
        return await asyncio.to_thread(render, await self._all_published())

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
            "scorer": {"failure": self._safety.failing},
        }
