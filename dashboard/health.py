"""Liveness, readiness and metrics of the console."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import text
from starlette.responses import JSONResponse, Response

from dashboard.queries import ReadCache
from servelens.database import Database
from servelens.errors import ServelensError


class _ConsoleMetrics:
    """Reads the console's numbers when it is scraped; nothing is counted on the way of a request."""

    def __init__(self, cache: ReadCache, cases: Callable[[], Mapping[str, int]]) -> None:
        self._cache = cache
        self._cases = cases

    def collect(self) -> Iterable[Metric]:
        reads = CounterMetricFamily(
            "servelens_console_reads", "Table reads of the console.", labels=["source"]
        )
        reads.add_metric(["cache"], self._cache.hits)
        reads.add_metric(["table"], self._cache.misses)
        yield reads
        cases = GaugeMetricFamily(
            "servelens_relabel_cases", "Cases in the relabeling queue.", labels=["state"]
        )
        for state, number in self._cases().items():
            cases.add_metric([state], number)
        yield cases


def router(database: Database, cache: ReadCache, cases: Callable[[], Mapping[str, int]]) -> APIRouter:
    """``/health/live``, ``/health/ready`` and ``/metrics``."""
    routes = APIRouter(tags=["health"])
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_ConsoleMetrics(cache, cases))

    @routes.get("/health/live")
    def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @routes.get("/health/ready")
    def ready() -> Response:
        """What the console depends on answers too."""
        try:
            with database.session() as session:
                session.execute(text("SELECT 1"))
        except ServelensError as error:
            return JSONResponse({"status": "unavailable", "database": error.message}, status_code=503)
        return JSONResponse({"status": "ok", "database": "ok"})

    @routes.get("/metrics")
    def metrics() -> Response:
        """Prometheus text format."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return routes
