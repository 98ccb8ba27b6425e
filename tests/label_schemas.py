"""Label schemas for tests: an endpoint's versions, the last of which is what annotators are asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from relabel.label_schema import LabelSchema, default_schema
from servelens.errors import Missing


class Versions:
    """The same versions for every endpoint. :meth:`change` makes a new one of the last."""

    def __init__(self, schema: LabelSchema | None = None, **changes: Any) -> None:
        first = default_schema() if schema is None else schema
        self._versions = [replace(first, version=1, **changes)]

    def change(self, **changes: Any) -> LabelSchema:
        """The new current version."""
        newest = replace(self._versions[-1], version=len(self._versions) + 1, **changes)
        self._versions.append(newest)
        return newest

    def current(self, endpoint: str) -> LabelSchema:
        return self._versions[-1]

    def version(self, endpoint: str, version: int) -> LabelSchema:
        if not 1 <= version <= len(self._versions):
            raise Missing(f"{endpoint} has no version {version}", field="version")
        return self._versions[version - 1]
