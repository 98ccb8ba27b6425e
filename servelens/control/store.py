"""Endpoints in the SQL database, with all their versions.

Every change takes the lock of one row (:class:`~servelens.control.models.GenerationRow`) before it reads what it
changes, so changes happen one after the other, none is lost, and a reader needs one number to know whether there is
anything new. What a caller cannot know (somebody changed the endpoint since it was read) is for it to say with
``expected_version``.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from servelens.clock import Clock
from servelens.control.models import EndpointRow, EndpointVersionRow, GenerationRow
from servelens.control.stored_endpoint import StoredEndpoint, TablePlace
from servelens.control.stored_settings import digest, masked, to_json
from servelens.database import Database
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import Conflict, InvalidSettings, Missing
from servelens.gateway_settings import InferenceTableSettings

Action = Literal["create", "config", "ai_gateway", "rate_limits", "tags", "file", "delete"]
FILE: Final = "file"
API: Final = "api"
UNROUTED_PREFIX: Final = "unrouted"

_GENERATION: Final = str(select(GenerationRow.value))
_WITHOUT_VERSION: Final = frozenset({"tags"})


class EndpointExists(Conflict):
    """There is an endpoint of that name already."""


class EndpointStore:
    """Reads and writes endpoints. Methods may be called from several threads and processes.

    ``catalog`` and ``schema`` are where an endpoint's tables are when its own settings do not say.
    """

    def __init__(
        self, database: Database, clock: Clock, *, catalog: str = "servelens", schema: str = "default"
    ) -> None:
        self._database = database
        self._clock = clock
        self._catalog = catalog
        self._schema = schema

    def generation(self) -> int:
        """The number of the last change; 0 before the first. One row is read."""
        return int(self._database.scalar(_GENERATION) or 0)

    def state(self, *, deleted: bool = False) -> tuple[int, list[StoredEndpoint]]:
        """A generation and all endpoints at least as new, oldest first; with the ``deleted`` ones, if asked for."""
        with self._database.session(read_only=True) as session:
            generation = session.scalar(select(GenerationRow.value)) or 0
            return generation, [StoredEndpoint.of(row) for row in _rows(session, deleted=deleted)]

    def all(self) -> list[StoredEndpoint]:
        """All endpoints that are not deleted, oldest first."""
        return self.state()[1]

    def get(self, name: str) -> StoredEndpoint:
        """The endpoint called ``name``. Raises :class:`~servelens.errors.Missing`."""
        with self._database.session(read_only=True) as session:
            return StoredEndpoint.of(_live(session, name))

    def served_before(self, name: str, generation: int) -> EndpointVersionRow | None:
        """The newest version of an endpoint that a worker at ``generation`` can have, or ``None``."""
        query = (
            select(EndpointVersionRow)
            .where(EndpointVersionRow.name == name, EndpointVersionRow.generation <= generation)
            .where(EndpointVersionRow.action != "delete")
            .order_by(EndpointVersionRow.generation.desc())
            .limit(1)
        )
        with self._database.session(read_only=True) as session:
            return session.scalar(query)

    def history(self, name: str) -> list[EndpointVersionRow]:
        """Every change of ``name``, oldest first, without secrets."""
        query = (
            select(EndpointVersionRow)
            .where(EndpointVersionRow.name == name)
            .order_by(EndpointVersionRow.generation)
        )
        with self._database.session(read_only=True) as session:
            return list(session.scalars(query))

    def create(
        self, settings: EndpointSettings, *, by: str, description: str | None = None
    ) -> StoredEndpoint:
        """Add an endpoint. Raises :class:`EndpointExists`, and InvalidSettings for a table that is another's."""
        with self._change() as change:
            row = change.session.get(EndpointRow, settings.name)
            if row is not None and row.deleted_at is None:
                raise EndpointExists(f"there is an endpoint named '{settings.name}' already.", field="name")
            row = change.put(row, settings, by=by, action="create", source=API)
            row.description = description
            return StoredEndpoint.of(row)

    def update(
        self,
        name: str,
        change_to: Callable[[StoredEndpoint], EndpointSettings],
        *,
        by: str,
        action: Action,
        expected_version: int | None = None,
    ) -> StoredEndpoint:
        """Give an endpoint the settings that ``change_to`` makes of its present state, while nobody else changes it.

        Raises :class:`~servelens.errors.Missing`, :class:`~servelens.errors.Conflict` when its config_version is not the
        expected one, and whatever ``change_to`` raises.
        """
        with self._change() as change:
            row = _live(change.session, name)
            if expected_version is not None and expected_version != row.config_version:
                raise Conflict(
                    f"endpoint '{name}' has config_version {row.config_version}, not {expected_version}.",
                    fix="Read it again.",
                )
            settings = change_to(StoredEndpoint.of(row))
            if to_json(settings) != row.settings:
                change.put(row, settings, by=by, action=action, source=row.source)
            return StoredEndpoint.of(row)

    def delete(self, name: str, *, by: str, check: Callable[[StoredEndpoint], None]) -> None:
        """Remove an endpoint, unless ``check`` raises. Its tables stay."""
        with self._change() as change:
            row = _live(change.session, name)
            check(StoredEndpoint.of(row))
            change.delete(row, by=by)

    def apply_file(self, blocks: Sequence[EndpointSettings], *, by: str) -> list[str]:
        """Reconcile the endpoints of the settings file; the names of those that were changed.

        A block is applied when it differs from what was applied last from the file, so a change by the API stays until
        the block changes; an endpoint that came from the file and is not in it any more is deleted. Raises
        InvalidSettings, and then nothing has changed.
        """
        digests = {block.name: digest(to_json(block)) for block in blocks}
        with self._database.session(read_only=True) as session:
            if not _differing(_rows(session, deleted=True), digests):
                return []
        with self._change() as change:
            rows = {row.name: row for row in _rows(change.session, deleted=True)}
            differing = _differing(rows.values(), digests)
            for block in blocks:
                if block.name in differing:
                    row = change.put(rows.get(block.name), block, by=by, action="file", source=FILE)
                    row.file_digest = digests[block.name]
            for name in sorted(differing - digests.keys()):
                rows[name].file_digest = None
                change.delete(rows[name], by=by)
            return sorted(differing)

    @contextmanager
    def _change(self) -> Iterator[_Change]:
        self._add_counter()
        with self._database.session() as session:
            counter = session.scalars(select(GenerationRow).with_for_update()).one()
            change = _Change(session, counter, self._clock, self._catalog, self._schema)
            yield change
            change.finish()

    def _add_counter(self) -> None:
        with self._database.session(read_only=True) as session:
            if session.get(GenerationRow, 1) is not None:
                return
        try:
            with self._database.session() as session:
                session.add(GenerationRow(id=1, value=0))
        except Conflict:  # somebody else has added it meanwhile
            return


class _Change:
    """One change, made under the counter's lock."""

    def __init__(
        self, session: Session, counter: GenerationRow, clock: Clock, catalog: str, schema: str
    ) -> None:
        self.session = session
        self._counter = counter
        self._next = counter.value + 1
        self._now = clock.now()
        self._catalog = catalog
        self._schema = schema
        self._changed = False

    def put(
        self, row: EndpointRow | None, settings: EndpointSettings, *, by: str, action: Action, source: str
    ) -> EndpointRow:
        """Write a new state of an endpoint and its version."""
        stored = to_json(settings)
        names = settings.ai_gateway.inference_table_config
        if row is None:
            place = self._new_place(settings.name, names)
            row = EndpointRow(
                name=settings.name,
                config_version=0,
                settings={},
                deleted_at=self._now,
                file_digest=None,
                table_catalog=place.catalog,
                table_schema=place.schema,
                table_prefix=place.prefix,
            )
            self.session.add(row)
        else:
            _refuse_move(row, names)
        if row.deleted_at is not None:
            row.id = uuid.uuid4().hex
            row.creator, row.created_at = by, self._now
            row.created_generation = self._next
            row.description, row.deleted_at = None, None
        if _serving(stored) != _serving(row.settings) or row.created_generation == self._next:
            row.config_version += 1
            row.config_generation = self._next
        row.settings, row.shown, row.source = stored, masked(settings), source
        self._note(row, row.shown, by=by, action=action)
        return row

    def delete(self, row: EndpointRow, *, by: str) -> None:
        """Mark an endpoint as deleted."""
        row.deleted_at = self._now
        self._note(row, {}, by=by, action="delete")

    def finish(self) -> None:
        """Count the change, if there was one."""
        if self._changed:
            self._counter.value = self._next

    def _note(self, row: EndpointRow, shown: dict[str, Any], *, by: str, action: Action) -> None:
        row.updated_at, row.generation = self._now, self._next
        self._changed = True
        self.session.add(
            EndpointVersionRow(
                generation=self._next,
                name=row.name,
                config_version=row.config_version,
                action=action,
                changed_by=by,
                changed_at=self._now,
                settings=shown,
            )
        )
        self.session.flush()

    def _new_place(self, endpoint: str, names: InferenceTableSettings) -> TablePlace:
        place = TablePlace(
            names.catalog_name or self._catalog,
            names.schema_name or self._schema,
            names.table_name_prefix or endpoint,
        )
        query = select(EndpointRow.name).where(
            EndpointRow.table_catalog == place.catalog,
            EndpointRow.table_schema == place.schema,
            EndpointRow.table_prefix == place.prefix,
        )
        owner = self.session.scalar(query)
        if place == (self._catalog, self._schema, UNROUTED_PREFIX):
            owner = "invocations that reach no endpoint"
        if owner is not None:
            raise InvalidSettings(
                f"the inference table '{'.'.join(place)}' belongs to '{owner}'.",
                field="ai_gateway.inference_table_config.table_name_prefix",
                fix="Give each endpoint a table of its own.",
            )
        return place


def _refuse_move(row: EndpointRow, names: InferenceTableSettings) -> None:
    asked = (names.catalog_name, names.schema_name, names.table_name_prefix)
    place = (row.table_catalog, row.table_schema, row.table_prefix)
    if any(new not in (None, old) for new, old in zip(asked, place, strict=True)):
        raise InvalidSettings(
            f"the inference table of endpoint '{row.name}' is '{'.'.join(place)}' and stays so.",
            field="ai_gateway.inference_table_config",
            fix="Leave its names as they are, or create an endpoint of another name.",
        )


def _serving(stored: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stored.items() if key not in _WITHOUT_VERSION}


def _differing(rows: Iterable[EndpointRow], digests: Mapping[str, str]) -> set[str]:
    """Names whose block has changed since it was applied, and those of the file that have no block any more."""
    by_name = {row.name: row for row in rows}
    changed = {
        name for name, block in digests.items() if name not in by_name or by_name[name].file_digest != block
    }
    gone = {
        row.name
        for row in by_name.values()
        if row.source == FILE and row.deleted_at is None and row.name not in digests
    }
    return changed | gone


def _rows(session: Session, *, deleted: bool) -> Sequence[EndpointRow]:
    query = select(EndpointRow).order_by(EndpointRow.created_generation, EndpointRow.name)
    if not deleted:
        query = query.where(EndpointRow.deleted_at.is_(None))
    return session.scalars(query).all()


def _live(session: Session, name: str) -> EndpointRow:
    row = session.get(EndpointRow, name)
    if row is None or row.deleted_at is not None:
        raise Missing(f"there is no endpoint named '{name}'.", field="name")
    return row
