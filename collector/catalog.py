"""Where each endpoint's tables are: ``<root>/<catalog>/<schema>/<prefix>_payload`` and its companions.

Invariant: two endpoints never share a table, so an application transaction in one says nothing about another.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from collector.feedback_table import FEEDBACK_SCHEMA
from collector.inference_table import PAYLOAD_SCHEMA
from collector.profile_tables import DRIFT_SCHEMA, PROFILE_SCHEMA
from collector.record import UNROUTED
from collector.score_table import SCORE_SCHEMA
from collector.table import Table
from servelens.errors import Invalid, Missing

__all__ = [
    "DRIFT_SCHEMA",
    "FEEDBACK_SCHEMA",
    "PAYLOAD_SCHEMA",
    "PROFILE_SCHEMA",
    "SCORE_SCHEMA",
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
    feedback: Table


class Catalog:
    """The tables of all endpoints under ``root`` (a folder or an object-store address).

    Invocations that reached no endpoint are kept under the endpoint name :data:`~collector.record.UNROUTED`;
    its tables are named by ``unrouted``.
    """

    def __init__(
        self,
        root: str,
        names: Mapping[str, TableName],
        *,
        unrouted: TableName = TableName("servelens", "default", "unrouted"),
        storage_options: Mapping[str, str] | None = None,
    ) -> None:
        self.endpoints = tuple(name for name in names if name != UNROUTED)
        self._tables: dict[str, EndpointTables] = {}
        taken: dict[TableName, str] = {}
        for endpoint, name in {UNROUTED: unrouted, **names}.items():
            for part in (name.catalog, name.schema, name.prefix):
                if not _PART.fullmatch(part):
                    raise Invalid(
                        f"{part!r} cannot be part of a table name",
                        field=f"the inference table of endpoint {endpoint!r}",
                        fix="Use letters, digits, '_', '-' and '.'.",
                    )
            if name in taken:
                raise Invalid(
                    f"it is the table of endpoint {taken[name]!r} as well",
                    field=f"the inference table of endpoint {endpoint!r}",
                    fix="Give each endpoint a table prefix of its own.",
                )
            taken[name] = endpoint
            self._tables[endpoint] = _tables(root, name, storage_options)

    def tables(self, endpoint: str) -> EndpointTables:
        """The tables of ``endpoint``. Raises :class:`~servelens.errors.Missing` when it is not configured."""
        try:
            return self._tables[endpoint]
        except KeyError:
            known = ", ".join(self.endpoints) or "none"
            raise Missing(f"there is no endpoint {endpoint!r}; configured are: {known}") from None


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
        feedback=Table(
            f"{prefix}_feedback",
            FEEDBACK_SCHEMA,
            time_column="feedback_time",
            storage_options=storage_options,
        ),
    )
