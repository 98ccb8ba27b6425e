"""Label schemas as transactions of the queue see them.

Invariant: a transaction never waits for a second connection to the database. Twenty annotators at once would otherwise each
hold one and wait for another, until none is left. So a transaction that misses a schema is given up (it has changed nothing
yet that lasts), the schema is read, and the transaction runs anew. A version never changes, so it is read once a process;
what is current is read anew for every call that asks for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from sqlalchemy.orm import Session

from relabel.label_schema import LabelSchema, Schemas, default_schema
from servelens.database import Database
from servelens.errors import Missing, Unavailable

_MOST_KEPT: Final = 1_000
_LONGEST_WAIT_S: Final = 20.0
_Result = TypeVar("_Result")


class DefaultSchemas:
    """Every endpoint asks for :func:`~relabel.label_schema.default_schema`."""

    def __init__(self) -> None:
        self._schema = default_schema()

    def current(self, endpoint: str) -> LabelSchema:
        """The default."""
        return self._schema

    def version(self, endpoint: str, version: int) -> LabelSchema:
        """The default."""
        return self._schema


class KnownSchemas:
    """Runs transactions that need schemas."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._versions: dict[tuple[str, int], LabelSchema] = {}
        self._line = threading.Lock()

    def run(
        self,
        database: Database,
        work: Callable[[Session, SchemasOfCall], _Result],
        *,
        current: str | None = None,
    ) -> _Result:
        """What ``work`` returns in a transaction, in which every schema that it asks for is at hand. ``current`` names an
        endpoint whose schema it will ask for. ``work`` may run several times, and must do nothing outside the transaction.
        """
        schemas = SchemasOfCall(self._versions)
        if current is not None:
            self._load(schemas, current, None)
        while True:
            try:
                with self._in_line(database), database.session() as session:
                    return work(session, schemas)
            except _SchemaNeeded as needed:
                self._load(schemas, needed.endpoint, needed.version)

    def current(self, endpoint: str) -> LabelSchema:
        """What annotators are asked now."""
        return self._schemas.current(endpoint)

    @contextmanager
    def _in_line(self, database: Database) -> Iterator[None]:
        """SQLite has one writer at a time, and lets the others look again and again, in no order and with longer and longer
        pauses. Here the threads of a process stand in line.
        """
        if database.engine.dialect.name != "sqlite":
            yield
            return
        if not self._line.acquire(timeout=_LONGEST_WAIT_S):
            raise Unavailable("the database is busy with others", fix="Try again.")
        try:
            yield
        finally:
            self._line.release()

    def _load(self, schemas: SchemasOfCall, endpoint: str, version: int | None) -> None:
        if len(self._versions) > _MOST_KEPT:
            self._versions.clear()
        if version is not None:
            try:
                self._versions[endpoint, version] = self._schemas.version(endpoint, version)
            except Missing as error:  # told to the transaction, which may know what to do
                schemas.missing[endpoint, version] = error
            return
        found = self._schemas.current(endpoint)
        schemas.now[endpoint] = found
        self._versions[endpoint, found.version] = found


class SchemasOfCall:
    """The schemas of one call, which sees one current schema an endpoint even when it changes meanwhile."""

    def __init__(self, versions: dict[tuple[str, int], LabelSchema]) -> None:
        self.now: dict[str, LabelSchema] = {}
        self.missing: dict[tuple[str, int], Missing] = {}
        self._versions = versions

    def current(self, endpoint: str) -> LabelSchema:
        """What annotators are asked now; only inside :meth:`KnownSchemas.run`."""
        found = self.now.get(endpoint)
        if found is None:
            raise _SchemaNeeded(endpoint, None)
        return found

    def version(self, endpoint: str, version: int) -> LabelSchema:
        """What they were asked at ``version``; only inside :meth:`KnownSchemas.run`. Raises
        :class:`~servelens.errors.Missing` when there is none.
        """
        found = self._versions.get((endpoint, version))
        if found is None and (endpoint, version) in self.missing:
            raise self.missing[endpoint, version]
        if found is None:
            raise _SchemaNeeded(endpoint, version)
        return found


class _SchemaNeeded(Exception):
    """Not an error: nobody but this file sees it."""

    def __init__(self, endpoint: str, version: int | None) -> None:
        self.endpoint = endpoint
        self.version = version
        super().__init__(endpoint)
