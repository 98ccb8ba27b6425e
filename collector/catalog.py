"""Where each endpoint's tables are: ``<root>/<catalog>/<schema>/<prefix>_payload`` and its companions.

Invariants: two endpoints never share a table, so an application transaction in one says nothing about another; and an
endpoint never gets another table, so whatever is read again goes where it went before.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from collector.embedding_table import EMBEDDING_SCHEMA
from collector.feedback_table import FEEDBACK_SCHEMA
from collector.inference_table import PAYLOAD_SCHEMA
from collector.label_table import LABEL_SCHEMA
from collector.profile_tables import DRIFT_SCHEMA, PROFILE_SCHEMA, SKETCH_SCHEMA
from collector.record import UNROUTED
from collector.score_table import SCORE_SCHEMA
from collector.table import Table
from servelens.errors import Invalid, Missing

__all__ = [
    "DRIFT_SCHEMA",
    "EMBEDDING_SCHEMA",
    "FEEDBACK_SCHEMA",
    "LABEL_SCHEMA",
    "PAYLOAD_SCHEMA",
    "PROFILE_SCHEMA",
    "SCORE_SCHEMA",
    "SKETCH_SCHEMA",
    "UNROUTED",
    "Catalog",
    "EndpointTables",
    "TableName",
]

_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class TableName:
    """Catalog, schema and table prefix, as in ``ai_gateway.inference_table_config`` of a Databricks
    endpoint."""

    catalog: str
    schema: str
    prefix: str


@dataclass(frozen=True, slots=True)
class EndpointTables:
    """The tables of one endpoint; none of them needs to exist yet."""

    payload: Table
    scores: Table
    profiles: Table
    drift: Table
    sketches: Table
    feedback: Table
    embeddings: Table
    labels: Table


class Catalog:
    """The tables of all endpoints under ``root`` (a folder or an object-store address).

    Invocations that reached no endpoint are kept under the endpoint name :data:`~collector.record.UNROUTED`;
    its tables are named by ``unrouted``. ``more`` is asked for the names of all endpoints whenever one is looked up that
    is not known yet; it gives ``None`` when there are no others than it gave last, and may raise
    :class:`~servelens.errors.Unavailable`. Methods may be called from several threads.
    """

    def __init__(
        self,
        root: str,
        names: Mapping[str, TableName],
        *,
        unrouted: TableName = TableName("servelens", "default", "unrouted"),
        storage_options: Mapping[str, str] | None = None,
        more: Callable[[], Mapping[str, TableName] | None] = lambda: None,
    ) -> None:
        self._root = root
        self._storage_options = storage_options
        self._more = more
        self._lock = threading.Lock()
        self._taken: dict[TableName, str] = {}
        self._tables: dict[str, EndpointTables] = {}
        self._add({UNROUTED: unrouted, **names})

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The names of the endpoints that are known by now."""
        return tuple(name for name in self._tables if name != UNROUTED)

    def refresh(self) -> None:
        """Ask for the names of all endpoints now. Raises :class:`~servelens.errors.Unavailable`."""
        with self._lock:
            self._add(self._more() or {})

    def tables(self, endpoint: str) -> EndpointTables:
        """The tables of ``endpoint``. Raises :class:`~servelens.errors.Missing` when there is no such endpoint,
        and :class:`~servelens.errors.Unavailable` when that cannot be known now.
        """
        tables = self._tables.get(endpoint)
        if tables is None:
            with self._lock:
                self._add(self._more() or {})
            tables = self._tables.get(endpoint)
        if tables is None:
            known = ", ".join(self.endpoints) or "none"
            raise Missing(f"there is no endpoint {endpoint!r}; configured are: {known}")
        return tables

    def _add(self, names: Mapping[str, TableName]) -> None:
        for endpoint, name in names.items():
            if endpoint in self._tables:
                continue
            for part in (name.catalog, name.schema, name.prefix):
                if not _PART.fullmatch(part):
                    raise Invalid(
                        f"{part!r} cannot be part of a table name",
                        field=f"the inference table of endpoint {endpoint!r}",
                        fix="Use letters, digits, '_', '-' and '.'.",
                    )
            owner = self._taken.setdefault(name, endpoint)
            if owner != endpoint:
                raise Invalid(
                    f"it is the table of endpoint {owner!r} as well",
                    field=f"the inference table of endpoint {endpoint!r}",
                    fix="Give each endpoint a table prefix of its own.",
                )
            self._tables[endpoint] = _tables(self._root, name, self._storage_options)


def _tables(root: str, name: TableName, storage_options: Mapping[str, str] | None) -> EndpointTables:
    prefix = f"{root.rstrip('/')}/{name.catalog}/{name.schema}/{name.prefix}"
    return EndpointTables(
        payload=Table(f"{prefix}_payload", PAYLOAD_SCHEMA, storage_options=storage_options),
        scores=Table(f"{prefix}_scores", SCORE_SCHEMA, storage_options=storage_options),
        profiles=Table(
            f"{prefix}_payload_profile_metrics",
            PROFILE_SCHEMA,
            partition_by=(),
            storage_options=storage_options,
        ),
        drift=Table(
            f"{prefix}_payload_drift_metrics",
            DRIFT_SCHEMA,
            partition_by=(),
            storage_options=storage_options,
        ),
        sketches=Table(f"{prefix}_sketches", SKETCH_SCHEMA, storage_options=storage_options),
        feedback=Table(
            f"{prefix}_feedback",
            FEEDBACK_SCHEMA,
            time_column="feedback_time",
            storage_options=storage_options,
        ),
        embeddings=Table(f"{prefix}_embeddings", EMBEDDING_SCHEMA, storage_options=storage_options),
        labels=Table(f"{prefix}_labels", LABEL_SCHEMA, storage_options=storage_options),
    )
