"""The label schemas of all endpoints in the SQL database, with all their versions.

Invariants: a version never changes, and versions of an endpoint are 1, 2, 3, … without a gap. The newest one that came from
the settings file is what the file said last, so a schema that is changed by API stays until the file changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from relabel.case import MAX_ANNOTATOR_LENGTH
from relabel.label_schema import LabelSchema, default_schema
from relabel.models import SchemaRow
from relabel.schema_definition import definition_of, parse_schema
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Conflict, Missing

FILE: Final = "servelens.yaml"

_FRESH_S: Final = 0.5
_ATTEMPTS: Final = 20
_MAX_VERSION: Final = 2**31 - 1
_KEPT: Final = 1_000


@dataclass(frozen=True, slots=True)
class StoredSchema:
    """A version as it is stored. Of version 0, which nobody made, the rest is ``None``."""

    endpoint: str
    schema: LabelSchema
    from_file: bool = False
    created_by: str | None = None
    created_at: datetime | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON; ``schema`` is the definition."""
        return {
            "endpoint": self.endpoint,
            "version": self.schema.version,
            "source": "default" if self.created_at is None else "file" if self.from_file else "api",
            "created_by": self.created_by,
            "created_at": None if self.created_at is None else self.created_at.isoformat(),
            "schema": definition_of(self.schema),
        }


class SchemaStore:
    """Reads and writes schemas. Methods may be called from several threads and processes.

    What another process has stored is seen by :meth:`current` within half a second, in which the database is not asked
    again; what this object has stored, at once. All raise :class:`~servelens.errors.Unavailable` when the database fails.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._current: dict[str, tuple[float, LabelSchema]] = {}
        self._versions: dict[tuple[str, int], LabelSchema] = {}

    def current(self, endpoint: str) -> LabelSchema:
        """What annotators are asked now: the newest version, else :func:`~relabel.label_schema.default_schema`."""
        now = self._clock.monotonic()
        found = self._current.get(endpoint)
        if found is not None and now < found[0]:
            return found[1]
        return self._keep(endpoint, self.get(endpoint).schema)

    def version(self, endpoint: str, version: int) -> LabelSchema:
        """What they were asked at ``version``. Raises :class:`~servelens.errors.Missing`."""
        found = self._versions.get((endpoint, version))
        if found is None:
            found = self.get(endpoint, version).schema
            if len(self._versions) >= _KEPT:
                self._versions.clear()
            self._versions[endpoint, version] = found
        return found

    def get(self, endpoint: str, version: int | None = None) -> StoredSchema:
        """A version with who made it, by default the newest. Raises :class:`~servelens.errors.Missing`."""
        if version == 0:
            return StoredSchema(endpoint, default_schema())
        row = None
        with self._database.session(read_only=True) as session:
            if version is None:
                row = _newest(session, endpoint)
            elif 0 < version <= _MAX_VERSION:
                row = session.get(SchemaRow, (endpoint, version))
            if row is not None:
                return _stored(row)
            if version is None:
                return StoredSchema(endpoint, default_schema())
            newest = _newest(session, endpoint)
        last = 0 if newest is None else newest.version
        raise Missing(
            f"the label schema of {endpoint!r} has no version {version}",
            field="version",
            fix=f"Use 0 to {last}." if last else "It has only the default one, 0.",
        )

    def versions(self, endpoint: str) -> list[StoredSchema]:
        """All that have been stored, the newest first; none where annotators are asked the default."""
        query = select(SchemaRow).where(SchemaRow.endpoint == endpoint).order_by(SchemaRow.version.desc())
        with self._database.session(read_only=True) as session:
            return [_stored(row) for row in session.scalars(query)]

    def put(
        self,
        endpoint: str,
        schema_definition: Mapping[str, Any],
        *,
        by: str | None,
        from_file: bool = False,
        expected_version: int | None = None,
    ) -> LabelSchema:
        """Ask this from now on. The definition that is current makes no new version, and of two at the same time the later
        one stays; ``expected_version`` is the one that the caller has read. ``from_file``: the settings file says so, which
        changes nothing if it said so last.

        Raises :class:`~servelens.errors.Invalid` for a definition that is none, and :class:`~servelens.errors.Conflict`
        when the current version is not the expected one.
        """
        schema = parse_schema(schema_definition)
        by = by if by is None else by[:MAX_ANNOTATOR_LENGTH]
        for _ in range(_ATTEMPTS):
            try:
                with self._database.session() as session:
                    stored = self._put(session, endpoint, schema, by, from_file, expected_version)
                break
            except _Stale:
                raise
            except Conflict:  # another has stored that version meanwhile: it is read, and this is the next
                continue
        else:
            raise Conflict(
                f"the label schema of {endpoint!r} is being changed by others all the time", fix="Try again."
            )
        return self._keep(endpoint, stored)

    def apply_file(self, definitions: Mapping[str, Mapping[str, Any]]) -> None:
        """Make the schemas of the settings file, by endpoint, the current ones where the file has changed since it was applied
        last. An endpoint whose block is gone, and whose schema the file gave, is asked the default again.

        Raises :class:`~servelens.errors.Invalid`, and then nothing has changed.
        """
        parsed = {endpoint: parse_schema(definition) for endpoint, definition in definitions.items()}
        for endpoint in self._from_file() - parsed.keys():
            parsed[endpoint] = default_schema()
        for endpoint, schema in sorted(parsed.items()):
            self.put(endpoint, definition_of(schema), by=FILE, from_file=True)

    def _keep(self, endpoint: str, schema: LabelSchema) -> LabelSchema:
        kept = self._current.get(endpoint)
        if kept is not None and kept[1].version > schema.version:
            return kept[1]  # another thread has stored or read a newer one meanwhile
        if len(self._current) >= _KEPT:
            self._current.clear()
        self._current[endpoint] = (self._clock.monotonic() + _FRESH_S, schema)
        return schema

    def _put(
        self,
        session: Session,
        endpoint: str,
        schema: LabelSchema,
        by: str | None,
        from_file: bool,
        expected_version: int | None,
    ) -> LabelSchema:
        newest = _newest(session, endpoint)
        current = default_schema() if newest is None else _stored(newest).schema
        if expected_version is not None and expected_version != current.version:
            raise _Stale(
                f"the label schema of {endpoint!r} is at version {current.version}, not {expected_version}",
                field="If-Match",
                fix="Read it again.",
            )
        compared: LabelSchema | None = current
        if from_file:
            said = _newest(session, endpoint, from_file=True)
            compared = None if said is None else _stored(said).schema
        if compared is not None and replace(compared, version=0) == schema:
            return current
        row = SchemaRow(
            endpoint=endpoint,
            version=current.version + 1,
            definition=definition_of(schema),
            from_file=from_file,
            created_by=by,
            created_at=self._clock.now(),
        )
        session.add(row)
        session.flush()
        return replace(schema, version=row.version)

    def _from_file(self) -> set[str]:
        """Endpoints whose current schema the file gave."""
        newer = SchemaRow.__table__.alias()
        query = select(SchemaRow.endpoint).where(
            SchemaRow.from_file,
            ~select(newer.c.version)
            .where(newer.c.endpoint == SchemaRow.endpoint, newer.c.version > SchemaRow.version)
            .exists(),
        )
        with self._database.session(read_only=True) as session:
            return set(session.scalars(query))


class _Stale(Conflict):
    """The caller has not read the current version: trying again would not help."""


def _newest(session: Session, endpoint: str, *, from_file: bool = False) -> SchemaRow | None:
    query = (
        select(SchemaRow).where(SchemaRow.endpoint == endpoint).order_by(SchemaRow.version.desc()).limit(1)
    )
    return session.scalar(query.where(SchemaRow.from_file) if from_file else query)


def _stored(row: SchemaRow) -> StoredSchema:
    return StoredSchema(
        endpoint=row.endpoint,
        schema=parse_schema(row.definition, row.version),
        from_file=row.from_file,
        created_by=row.created_by,
        created_at=row.created_at,
    )
