"""The HTTP API of relabeling, put together from what the console has."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter

from dashboard.console import Console
from relabel.api import agreement, feedback, interchange, router, schemas, selection


def relabel_routers(console: Console) -> Iterator[APIRouter]:
    """Every router under ``/api/relabel``."""
    services = console.services
    database, clock, catalog = services.database, services.clock, services.catalog

    def endpoints() -> set[str]:
        return {endpoint.name for endpoint in services.endpoints}

    yield router.router(services.queue, database, clock=clock, catalog=catalog)
    yield schemas.router(
        console.schemas,
        database,
        console.alternatives,
        endpoints=endpoints,
        tables=catalog.tables,
        regeneration=console.regeneration,
    )
    yield selection.router(console.manual, console.rule_days)
    yield agreement.router(console.agreement.reports, services.evaluator_agreement)
    yield interchange.router(database, clock, console.schemas, endpoints)
    yield feedback.router(catalog, clock)
