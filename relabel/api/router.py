"""HTTP API of relabeling, under ``/api/relabel``: the queue and the exports.

Errors are raised as :class:`~servelens.errors.ServelensError`; the application that includes the router turns
them into problem details. Handlers are plain functions, so that they run beside the event loop, never on it.
"""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime

from relabel.api import queue as queue_api
from relabel.export.openai_chat_export import ExportSummary, OpenAIChatExport
from relabel.queue.case_queue import CaseQueue
from servelens.database import Database

_Since = Annotated[AwareDatetime | None, Query(description="Only records requested at this time or later.")]
_Until = Annotated[AwareDatetime | None, Query(description="Only records requested before this time.")]


def router(queue: CaseQueue, database: Database) -> APIRouter:
    """The routes. Inputs that break a rule raise :class:`~servelens.errors.Invalid` naming the field."""
    routes = APIRouter(prefix="/api/relabel", tags=["relabel"])
    routes.include_router(queue_api.router(queue))
    _add_export_routes(routes, database)
    return routes


def _add_export_routes(routes: APIRouter, database: Database) -> None:
    @routes.get("/export", response_class=StreamingResponse)
    def export(endpoint: str | None = None, since: _Since = None, until: _Until = None) -> StreamingResponse:
        """Labeled cases as OpenAI chat fine-tuning JSONL."""
        chunks = iter(_export(database, endpoint, since, until))
        # Read before the status line goes out, so that a database that is down is still an error.
        first = list(itertools.islice(chunks, 1))
        return StreamingResponse(
            itertools.chain(first, chunks),
            media_type="application/jsonl",
            headers={"content-disposition": 'attachment; filename="openai-chat.jsonl"'},
        )

    @routes.get("/export/summary")
    def summary(endpoint: str | None = None, since: _Since = None, until: _Until = None) -> ExportSummary:
        """What the export holds, and which labeled cases it leaves out."""
        counted = _export(database, endpoint, since, until)
        for _ in counted:
            pass
        return counted.summary


def _export(
    database: Database, endpoint: str | None, since: datetime | None, until: datetime | None
) -> OpenAIChatExport:
    return OpenAIChatExport(database, endpoint=endpoint, since=since, until=until)
