"""HTTP API of exports, under ``/api/relabel``.

Invariant: what looks like a complete file is one. One file is streamed as it is read, and when the database fails on the way
the connection is cut, so that no client takes the end for the end of the file; several files are made before the first
byte of their archive goes out. The manifest is kept when the export is complete, and ``x-servelens-export`` names it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Final, TypeAlias

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict

from collector.catalog import Catalog
from relabel.export.export import Export, ExportSummary
from relabel.export.line_files import LineFile, stream_lines
from relabel.export.manifest import Manifests
from relabel.export.preview import Preview, preview_of
from relabel.export.query import ExportQuery
from relabel.export.requested import requested_query
from relabel.export.table_export import export_table
from relabel.export.table_versions import table_versions
from relabel.export.write import is_folder, refuse_table, stream_archive
from servelens.api_caller import Caller
from servelens.clock import Clock
from servelens.database import Database
from servelens.identifiers import RequestIds

_HEADER: Final = "x-servelens-export"
_Words: TypeAlias = Annotated[list[str], Query()]


def _query(
    format: Annotated[str, Query(description="Name of a format.")] = "openai_chat",
    endpoint: Annotated[list[str], Query(description="Only these endpoints.")] = [],  # noqa: B006
    since: Annotated[AwareDatetime | None, Query(description="Requested at this time or later.")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Requested before this time.")] = None,
    rating: Annotated[str | None, Query(description="good or bad")] = None,
    tag: Annotated[list[str], Query(description="All of these tags.")] = [],  # noqa: B006
    value: Annotated[list[str], Query(description="FIELD=VALUE of the label.")] = [],  # noqa: B006
    preferred: Annotated[str | None, Query(description="answer, alternative, tie or an id")] = None,
    min_agreement: Annotated[float | None, Query(description="Share of labels that say the same.")] = None,
    resolution: _Words = [],  # noqa: B006
    rule: Annotated[list[str], Query(description="Selected by one of these rules.")] = [],  # noqa: B006
    reason: Annotated[list[str], Query(description="Selected by one of these kinds of rules.")] = [],  # noqa: B006
    served_entity: str | None = None,
    variant: str | None = None,
    as_of: Annotated[
        int | None, Query(description="As the decisions up to this one left the labels.")
    ] = None,
    split: Annotated[float | None, Query(description="Share of the test set.")] = None,
    split_seed: int = 0,
    split_by: str = "unit",
    dedupe: Annotated[str | None, Query(description="exact or near")] = None,
    mask: Annotated[list[str], Query(description="Kinds of personal data, or all.")] = [],  # noqa: B006
) -> ExportQuery:
    return requested_query(
        format=format,
        endpoint=endpoint,
        since=since,
        until=until,
        rating=rating,
        tag=tag,
        value=value,
        preferred=preferred,
        min_agreement=min_agreement,
        resolution=resolution,
        rule=rule,
        reason=reason,
        served_entity=served_entity,
        variant=variant,
        as_of=as_of,
        split=split,
        split_seed=split_seed,
        split_by=split_by,
        dedupe=dedupe,
        mask=mask,
    )


_Query: TypeAlias = Annotated[ExportQuery, Depends(_query)]


class TableBody(BaseModel):
    """Whose labels are appended to the endpoint's table ``_labels``."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str


def router(database: Database, clock: Clock, catalog: Catalog | None = None) -> APIRouter:
    """The routes; without ``catalog`` manifests name no table versions, and there is no table of labels. Raises what
    :class:`~relabel.export.query.ExportQuery` raises, and what the database raises.
    """
    routes = APIRouter(prefix="/api/relabel", tags=["relabel exports"])
    manifests = Manifests(database, clock.now, None if catalog is None else table_versions(catalog))
    _add_files(routes, database, manifests)
    _add_looks(routes, database, manifests)
    if catalog is not None:

        @routes.post("/exports/labels-table")
        def labels_table(body: TableBody, caller: Caller) -> dict[str, Any]:
            """Append the labels that the endpoint's Delta table ``_labels`` does not hold."""
            query = ExportQuery(format="labels_table", endpoints=(body.endpoint,))
            return export_table(database, catalog, query, manifests, by=caller)

    return routes


def _add_files(routes: APIRouter, database: Database, manifests: Manifests) -> None:
    @routes.get("/export", response_class=StreamingResponse)
    def export(query: _Query, caller: Caller) -> StreamingResponse:
        """Labeled cases as a file: JSON lines, or a zip archive where there are several files."""
        refuse_table(query)
        name = query.format.replace("_", "-")
        if is_folder(query):
            manifest, chunks = stream_archive(database, query, manifests, by=caller)
            return _answer(chunks, "application/zip", f"{name}.zip", manifest["id"])
        export_id = RequestIds().next()
        lines = _kept(Export(database, query), f"{name}.jsonl", manifests, caller, export_id)
        # Read before the status line goes out, so that a database that is down is still an error.
        first = list(itertools.islice(lines, 1))
        return _answer(itertools.chain(first, lines), "application/jsonl", f"{name}.jsonl", export_id)


def _add_looks(routes: APIRouter, database: Database, manifests: Manifests) -> None:
    @routes.get("/export/summary")
    def summary(query: _Query) -> ExportSummary:
        """What the export holds, and which labeled cases it leaves out."""
        refuse_table(query)
        counted = Export(database, query)
        for _ in counted:
            pass
        return counted.summary

    @routes.get("/export/preview")
    def preview(query: _Query, limit: Annotated[int, Query(ge=1, le=100)] = 5) -> Preview:
        """The first examples, and counts of the first cases."""
        refuse_table(query)
        return preview_of(Export(database, query), limit)

    @routes.get("/exports")
    def exports(limit: int = 50) -> list[dict[str, Any]]:
        """The newest exports by their manifests, without the cases."""
        return manifests.list(limit)

    @routes.get("/exports/{export_id}/manifest")
    def manifest(export_id: str) -> dict[str, Any]:
        """All that an export was made of; `servelens relabel export --reproduce` takes it."""
        return manifests.get(export_id)


def _kept(export: Export, name: str, manifests: Manifests, by: str, export_id: str) -> Iterator[bytes]:
    file = LineFile(name)
    yield from stream_lines(export, file)
    manifests.made(export, [file.written()], by=by, export_id=export_id)


def _answer(chunks: Iterator[bytes], kind: str, name: str, export_id: str) -> StreamingResponse:
    return StreamingResponse(
        chunks,
        media_type=kind,
        headers={"content-disposition": f'attachment; filename="{name}"', _HEADER: export_id},
    )
