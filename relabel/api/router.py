"""HTTP API of relabeling, under ``/api/relabel``: the queue and the exports.

Errors are raised as :class:`~servelens.errors.ServelensError`; the application that includes the router turns
them into problem details. Handlers are plain functions, so that they run beside the event loop, never on it.
"""

from __future__ import annotations

from fastapi import APIRouter

from collector.catalog import Catalog
from relabel.api import exports
from relabel.api import queue as queue_api
from relabel.queue.case_queue import CaseQueue
from servelens.clock import Clock, SystemClock
from servelens.database import Database


def router(
    queue: CaseQueue, database: Database, *, clock: Clock | None = None, catalog: Catalog | None = None
) -> APIRouter:
    """The routes. Inputs that break a rule raise :class:`~servelens.errors.Invalid` naming the field."""
    routes = APIRouter(prefix="/api/relabel", tags=["relabel"])
    routes.include_router(queue_api.router(queue))
    whole = APIRouter()
    whole.include_router(routes)
    whole.include_router(exports.router(database, clock or SystemClock(), catalog))
    return whole
