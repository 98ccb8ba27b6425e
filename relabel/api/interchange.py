"""HTTP API of the exchange with other labeling tools, under ``/api/relabel/interchange``."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from relabel.case import CaseState
from relabel.interchange.importer import Importer, ImportReport
from relabel.interchange.json_array import read_objects
from relabel.interchange.named_annotators import named_annotators
from relabel.interchange.task_array import task_array
from relabel.interchange.task_case import task_cases
from relabel.interchange.tools import TOOLS, ToolName
from relabel.label_schema import LabelSchema, Schemas
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Invalid, Missing

MAX_BODY: Final = 64 * 1024 * 1024
"""Bytes of an import; a longer file goes through the command line, or in parts."""
_CHUNK: Final = 64 * 1024

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"type": "array", "items": {"type": "object"}}}},
    }
}
_Names = Annotated[
    list[str],
    Query(description="A name here for a user of the tool, as in 3=ann@example.com; may be repeated."),
]


def router(
    database: Database, clock: Clock, schemas: Schemas, endpoints: Callable[[], Collection[str]]
) -> APIRouter:
    """The routes. ``endpoints`` gives the names of those that there are. Inputs that break a rule raise
    :class:`~servelens.errors.Invalid` naming the field.
    """
    routes = APIRouter(prefix="/api/relabel/interchange", tags=["relabel"])

    def asked(endpoint: str) -> LabelSchema:
        names = endpoints()
        if endpoint not in names:
            raise Missing(
                f"there is no endpoint {endpoint!r}"[:300],
                field="endpoint",
                fix=f"Use one of: {', '.join(sorted(names)) or 'there is none yet'}.",
            )
        return schemas.current(endpoint)

    @routes.get("/{tool}/config", response_class=Response)
    def config(tool: ToolName, endpoint: str) -> Response:
        """What the tool has to be told once: a labeling configuration (XML), or a dataset's settings (JSON)."""
        chosen = TOOLS[tool]
        return Response(chosen.config(asked(endpoint)), media_type=chosen.config_type)

    @routes.get("/{tool}/tasks", response_class=StreamingResponse)
    def tasks(
        tool: ToolName,
        endpoint: str,
        state: CaseState = CaseState.OPEN,
        limit: Annotated[int | None, Query(ge=1)] = None,
    ) -> StreamingResponse:
        """Unfinished cases as tasks, the most urgent first, in one JSON array."""
        schema = asked(endpoint)
        cases = task_cases(database, endpoint, state=state, limit=limit)
        chunks = task_array(TOOLS[tool], cases, schema)
        # Read before the status line goes out, so that a database that is down is still an error.
        first = list(itertools.islice(chunks, 1))
        return StreamingResponse(
            itertools.chain(first, chunks),
            media_type="application/json",
            headers={"content-disposition": f'attachment; filename="{tool}-tasks.json"'},
        )

    @routes.post("/{tool}/annotations", openapi_extra=_BODY)
    async def annotations(
        tool: ToolName,
        request: Request,
        endpoint: str | None = None,
        annotator: _Names = [],  # noqa: B006 - FastAPI copies it
        dry_run: bool = False,
    ) -> ImportReport:
        """Take in what the tool exported, a JSON array. The same again changes nothing."""
        names = named_annotators(annotator)
        importer = Importer(database, clock, schemas, TOOLS[tool], endpoint=endpoint, annotators=names)
        body = await _body(request)
        return await run_in_threadpool(importer.run, read_objects(_chunks(body)), dry_run=dry_run)

    return routes


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise Invalid(
                f"it is over {MAX_BODY // 1024**2} MiB",
                field="body",
                fix="Send it in parts, or use 'servelens relabel import'.",
            )
    return bytes(body)


def _chunks(body: bytes) -> Iterator[bytes]:
    for first in range(0, len(body), _CHUNK):
        yield body[first : first + _CHUNK]
