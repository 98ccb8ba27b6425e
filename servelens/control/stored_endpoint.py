"""An endpoint as the database has it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from pydantic import ValidationError

from servelens.control.models import EndpointRow
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import InvalidSettings


class TablePlace(NamedTuple):
    """Catalog, schema and prefix of an endpoint's tables."""

    catalog: str
    schema: str
    prefix: str


@dataclass(frozen=True, slots=True)
class StoredEndpoint:
    """``settings`` is EndpointSettings as JSON with secrets, ``shown`` without. ``config_version`` counts the changes of
    what it serves, ``config_generation`` is the number of the last one, ``created_generation`` that of its (last)
    creation.
    """

    name: str
    id: str
    settings: Mapping[str, Any]
    shown: Mapping[str, Any]
    config_version: int
    config_generation: int
    created_generation: int
    source: str
    description: str | None
    creator: str
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    table: TablePlace

    @classmethod
    def of(cls, row: EndpointRow) -> StoredEndpoint:
        """A copy that outlives the row's session."""
        return cls(
            name=row.name,
            id=row.id,
            settings=row.settings,
            shown=row.shown,
            config_version=row.config_version,
            config_generation=row.config_generation,
            created_generation=row.created_generation,
            source=row.source,
            description=row.description,
            creator=row.creator,
            created_at=row.created_at,
            updated_at=row.updated_at,
            deleted_at=row.deleted_at,
            table=TablePlace(row.table_catalog, row.table_schema, row.table_prefix),
        )

    def parsed(self) -> EndpointSettings:
        """The settings. Raises InvalidSettings when this release does not take what another one has stored."""
        try:
            return EndpointSettings.model_validate(self.settings)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            raise InvalidSettings(
                f"the stored settings of endpoint '{self.name}' are not valid: {first['msg']}.",
                field=place,
                fix="Update the endpoint's configuration.",
            ) from error
