"""Asks replicas how they are: ``GET path`` every ``interval_s``, one task a replica.

Invariant: exactly the replicas of the last snapshot followed are asked, and one that is no longer asked is not held
to be down. The times are spread by a tenth, so that many workers do not ask at once. Any status below 400 is well, as
for Kubernetes' probes: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from random import Random

from servelens.errors import Unavailable
from serving_proxy.endpoint import Backend, Endpoint
from serving_proxy.fetch import fetch
from serving_proxy.replicas import Replica, key_fields
from serving_proxy.upstreams import Upstreams

logger = logging.getLogger(__name__)


class HealthChecks:
    """The tasks of one worker. Where entities share a replica, the first one that has a path says how it is asked."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams
        self._random = Random()
        self._tasks: dict[str, tuple[Backend, asyncio.Task[None]]] = {}

    def follow(self, endpoints: Iterable[Endpoint]) -> None:
        """Ask the replicas of these endpoints from now on."""
        wanted: dict[str, Backend] = {}
        for endpoint in endpoints:
            for entity in endpoint.served_entities:
                if entity.backend.health.path is not None:
                    for url in entity.backend.urls:
                        wanted.setdefault(url, entity.backend)
        for url in [url for url, (backend, _) in self._tasks.items() if wanted.get(url) != backend]:
            self._tasks.pop(url)[1].cancel()
            if url not in wanted:
                self._upstreams.replica(url).health.is_asked_no_more()
        for url, backend in wanted.items():
            if url not in self._tasks:
                task = self._upstreams.loop.create_task(self._ask_on(self._upstreams.replica(url), backend))
                self._tasks[url] = backend, task

    async def close(self) -> None:
        """Ask nobody any more."""
        tasks = [task for _, task in self._tasks.values()]
        self._tasks = {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_on(self, replica: Replica, backend: Backend) -> None:
        settings = backend.health
        while True:
            problem = await _problem(replica, backend)
            if replica.health.checked(settings, ok=problem is None):
                if problem is None:
                    logger.info("replica is up: url=%s", replica.url)
                else:
                    logger.warning("replica is down: url=%s reason=%s", replica.url, problem)
            await asyncio.sleep(settings.interval_s * self._random.uniform(0.9, 1.1))


async def _problem(replica: Replica, backend: Backend) -> str | None:
    """What is wrong with it; ``None`` when it is well."""
    path = (backend.health.path or "/").encode()
    headers = key_fields(backend.api, backend.api_key)
    try:
        answer = await fetch(replica, b"GET", path, headers, backend.health.timeout_s)
    except Unavailable as error:
        return error.message
    return f"GET {path.decode()} answered {answer.status}" if answer.status >= 400 else None
