"""What an export holds and how to make it again.

Invariant: a manifest has all that decides the bytes of the files: the query with its ``as_of``, and the versions of the
programs that wrote them. Label schemas are there with their definitions, for whoever reads the files without the database.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from sqlalchemy import select

from relabel.export.export import Export
from relabel.export.formats.format import Layout
from relabel.label_schema import default_schema
from relabel.models import CaseRow, CursorRow, ExportRow, SchemaRow
from relabel.schema_definition import definition_of
from servelens.database import Database
from servelens.errors import Invalid, Missing
from servelens.identifiers import RequestIds

MANIFEST: Final = "manifest.json"
FORMAT_VERSION: Final = 1
_MANIFESTS_AT_ONCE: Final = 10

TableVersions = Callable[[str], Mapping[str, int | None]]
"""The newest versions of an endpoint's Delta tables, by name."""


def is_manifest(value: Any) -> bool:
    """Whether JSON is a manifest of some version."""
    return isinstance(value, dict) and {"manifest", "query", "files", "cases", "servelens"} <= value.keys()


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file by its name in the folder, with its number of examples, its bytes and their SHA-256 (hex)."""

    name: str
    split: str | None
    examples: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifests:
    """Writes manifests and keeps them in the database. ``table_versions`` is asked for the Delta tables of an endpoint."""

    database: Database
    now: Callable[[], datetime]
    table_versions: TableVersions | None = None

    def made(
        self,
        export: Export,
        files: Sequence[WrittenFile],
        *,
        by: str | None,
        export_id: str | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """The manifest of an export that has been given whole, kept. Raises what the database raises."""
        manifest = {**self._manifest(export, files, by), **more}
        if export_id is not None:
            manifest["id"] = export_id
        with self.database.session() as session:
            session.add(
                ExportRow(
                    id=manifest["id"],
                    created_at=datetime.fromisoformat(manifest["created_at"]),
                    created_by=by,
                    manifest=manifest,
                )
            )
        return manifest

    def list(self, limit: int = 50) -> list[dict[str, Any]]:
        """The newest manifests, the last one first, without the tally of their cases."""
        if not 1 <= limit <= 500:
            raise Invalid(f"{limit} is no number of exports", field="limit", fix="Use 1 to 500.")
        newest = select(ExportRow.manifest).order_by(ExportRow.created_at.desc(), ExportRow.id.desc())
        # A few at a time, for the tally of a large export is long.
        wanted = newest.limit(limit).execution_options(yield_per=_MANIFESTS_AT_ONCE)
        with self.database.session(read_only=True) as session:
            return [
                {name: value for name, value in each.items() if name != "cases"}
                for each in session.scalars(wanted)
            ]

    def get(self, export_id: str) -> dict[str, Any]:
        """The whole manifest. Raises :class:`~servelens.errors.Missing`."""
        with self.database.session(read_only=True) as session:
            row = session.get(ExportRow, export_id)
            if row is None:
                raise Missing(f"there is no export {export_id!r}"[:100], field="export_id")
            return row.manifest

    def _manifest(self, export: Export, files: Sequence[WrittenFile], by: str | None) -> dict[str, Any]:
        summary = export.summary
        counts: dict[str, Any] = {
            "cases": summary.cases,
            "written": summary.written,
            "left_out": dict(summary.left_out),
        }
        for name in ("by_split", "masked"):
            if getattr(summary, name) is not None:
                counts[name] = dict(getattr(summary, name))
        if export.split_report is not None:
            counts["split"] = dict(export.split_report)
        return {
            "manifest": FORMAT_VERSION,
            "id": RequestIds().next(),
            "created_at": self.now().astimezone(UTC).isoformat(),
            "created_by": by,
            **programs(export),
            "query": {**export.query.to_json(), "as_of": export.as_of},
            "tables": self._tables(export),
            "label_schemas": self._schemas(export),
            "counts": counts,
            "files": [asdict(file) for file in files],
            "cases": export.tally.to_json(),
        }

    def _tables(self, export: Export) -> dict[str, dict[str, Any]]:
        """By endpoint: up to which version of each source cases were selected, and the newest version of each table."""
        found: dict[str, dict[str, Any]] = {}
        wanted = select(CursorRow.endpoint, CursorRow.source, CursorRow.version)
        with self.database.session(read_only=True) as session:
            endpoints = export.query.endpoints or tuple(
                session.scalars(select(CaseRow.endpoint).distinct().order_by(CaseRow.endpoint))
            )
            for endpoint, source, read in session.execute(wanted.where(CursorRow.endpoint.in_(endpoints))):
                found.setdefault(endpoint, {}).setdefault("selected_up_to", {})[source] = read
        if self.table_versions is not None:
            for endpoint in endpoints:
                found.setdefault(endpoint, {})["newest"] = dict(self.table_versions(endpoint))
        return dict(sorted(found.items()))

    def _schemas(self, export: Export) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        with self.database.session(read_only=True) as session:
            for endpoint, versions in sorted(export.schema_versions.items()):
                kept = {
                    row.version: row.definition
                    for row in session.scalars(select(SchemaRow).where(SchemaRow.endpoint == endpoint))
                }
                kept.setdefault(0, definition_of(default_schema()))
                found[endpoint] = {str(number): kept.get(number) for number in sorted(versions)}
        return found


def programs(export: Export) -> dict[str, str]:
    """What decides the bytes besides the labels: Parquet is written by Arrow."""
    programs = {"servelens": version("servelens")}
    if export.format.layout is Layout.PARQUET:
        programs["pyarrow"] = version("pyarrow")
    if export.query.mask:
        programs["phonenumbers"] = version("phonenumbers")
    return programs
