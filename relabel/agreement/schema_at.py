"""The label schema that a label answered, where it is known."""

from __future__ import annotations

from relabel.label_schema import LabelSchema, Schemas, default_schema
from servelens.errors import Missing


def schema_at(schemas: Schemas | None, endpoint: str, version: int) -> LabelSchema | None:
    """The schema of that version, the default one at 0; ``None`` when nobody knows it."""
    if version == 0:
        return default_schema()
    if schemas is None:
        return None
    try:
        return schemas.version(endpoint, version)
    except Missing:
        return None
