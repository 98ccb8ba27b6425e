"""The beginning of an export, for somebody who is about to ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from relabel.export.export import Export, ExportSummary

MAX_CASES: Final = 5_000


@dataclass(frozen=True, slots=True)
class PreviewedExample:
    """An example, with the part of the format and the split that it is in (``""``: there are none)."""

    part: str
    split: str
    value: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Preview:
    """The first examples, and counts; unless ``is_whole`` these are of about the first :data:`MAX_CASES` cases only."""

    examples: list[PreviewedExample]
    summary: ExportSummary
    is_whole: bool


def preview_of(export: Export, limit: int) -> Preview:
    """The first ``limit`` examples. Raises what iterating ``export`` raises."""
    examples: list[PreviewedExample] = []
    is_whole = True
    for chunk in export:
        for place, found in chunk.items():
            missing = limit - len(examples)
            examples += [PreviewedExample(*place, example.value) for example in found[: max(0, missing)]]
        if export.cases >= MAX_CASES:
            is_whole = False
            break
    return Preview(examples, export.summary, is_whole)
