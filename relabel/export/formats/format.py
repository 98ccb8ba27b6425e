"""What a format is: how the examples of a case look, and in which files they are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeAlias

import pyarrow as pa

from relabel.export.labeled_case import LabeledCase
from relabel.export.left_out import LeftOut, Unfit

Examples: TypeAlias = Callable[[LabeledCase], Iterator[dict[str, Any] | LeftOut]]
"""The examples of a case, each a JSON object, or why one is none; at least one of either."""


class Layout(StrEnum):
    """``lines``: JSON lines in one file, or one a split. ``parquet``: a folder. ``table``: rows of a Delta table."""

    LINES = "lines"
    PARQUET = "parquet"
    TABLE = "table"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Examples of one shape; ``columns`` are those of its Parquet files."""

    examples: Examples
    columns: pa.Schema | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A format by its ``name``; ``parts`` by theirs, of which all but Parquet have one, named ``""``."""

    name: str
    title: str
    layout: Layout = Layout.LINES
    parts: Mapping[str, Part] = field(default_factory=dict)


def one_each(example: Callable[[LabeledCase], dict[str, Any]]) -> Examples:
    """Examples of a format that makes at most one of a case; ``example`` may raise
    :class:`~relabel.export.left_out.Unfit`.
    """

    def examples(case: LabeledCase) -> Iterator[dict[str, Any] | LeftOut]:
        try:
            yield example(case)
        except Unfit as unfit:
            yield unfit.reason

    return examples


def lines(name: str, title: str, examples: Examples) -> Format:
    """A format of JSON lines."""
    return Format(name=name, title=title, parts={"": Part(examples=examples)})
