"""The service as a process has it: an event loop, a listening socket and the model's thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import uvicorn

from evaluators.evaluator import Evaluator, Score
from evaluators.scorer_service.application import ScorerApplication
from evaluators.scorer_service.micro_batches import STUCK_S, MicroBatches
from evaluators.scorer_service.model_thread import ModelThread
from evaluators.scorer_service.service_metrics import ServiceMetrics
from servelens.clock import Clock
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

_GRACE_S: Final = 5
_WARM_UP: Final = (1, 2, 4, 8)
_WARM_UP_TEXT: Final = "Thank you for your help, that was a good answer."


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """How it batches: see MicroBatches."""

    max_wait_s: float = 0.003
    max_batch: int = 64
    max_queue: int = 2_048
    stuck_s: float = STUCK_S


class _Server(uvicorn.Server):
    """uvicorn's server, told to stop by us: its own signal handling ends the process by the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """The address, taken but not listening yet, so that nobody connects before there is a model. ``port`` 0 takes a free
    one. Raises Unavailable when it is not to be had.
    """
    # asyncio turns Nagle's algorithm off only where the protocol is said; with it an answer, which is written as head and
    # body, waits 40 ms for the other side's delayed acknowledgement.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Unavailable(
            f"cannot listen on {host}:{port}: {error.strerror}",
            field="scorer.port",
            fix="Choose another port.",
        ) from error
    return listener


async def run_service(
    evaluator: Evaluator,
    config: ServiceConfig,
    listener: socket.socket,
    clock: Clock,
    *,
    stop: asyncio.Event | None = None,
) -> None:
    """Warm up, then serve on ``listener`` until ``stop`` is set; without one, until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
    model = ModelThread(evaluator)
    metrics = ServiceMetrics()
    batches = MicroBatches(
        model,
        metrics,
        clock,
        max_wait_s=config.max_wait_s,
        max_batch=config.max_batch,
        max_queue=config.max_queue,
        stuck_s=config.stuck_s,
    )
    metrics.watch_queue(lambda: batches.queued)
    server = _Server(
        uvicorn.Config(
            ScorerApplication(evaluator, batches, metrics),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=300,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    stopping = loop.create_task(_stop_when(stop, server))
    computing = loop.create_task(batches.run())
    try:
        for count in _WARM_UP:
            await _unless_stopped(model.score([_WARM_UP_TEXT] * count), stop)
        if not stop.is_set():
            logger.info("scorer listening: address=%s:%d", *listener.getsockname()[:2])
            await server.serve(sockets=[listener])
    finally:
        for task in (stopping, computing):
            task.cancel()
        await asyncio.gather(stopping, computing, return_exceptions=True)
        model.close()


async def _stop_when(stop: asyncio.Event, server: _Server) -> None:
    await stop.wait()
    server.should_exit = True


async def _unless_stopped(work: asyncio.Future[list[Score]], stop: asyncio.Event) -> None:
    """Wait for ``work``, which may be a model that hangs, or for the stop."""
    stopped = asyncio.ensure_future(stop.wait())
    await asyncio.wait((work, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
