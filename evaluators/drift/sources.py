"""What a window of records is looked at by: columns of numbers, categories or vectors, each from a source.

A source reads one window's records and gives one column per observed quantity. Sources are handed to the runner, so
whoever wants to watch something else (the embedding of a text, a feature of a tabular request) writes a source and
changes nothing here. Records are matched by their id; what a source does not give for a record is null.

Invariant: a source says the same about a record whenever it is asked, for as long as its ``version`` stays the same:
windows that were sketched once are not read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import polars as pl

from collector.catalog import EndpointTables
from evaluators.drift.windows import Window

REQUEST_ID: Final = "databricks_request_id"
"""The column by which the frames of sources are matched."""


class Kind(StrEnum):
    """How a column's distribution is summed up and compared."""

    NUMERIC = "numeric"
    CATEGORICAL = "categorical"
    VECTOR = "vector"
    """Vectors of one length: polars ``Array`` or ``List`` of ``Float32``."""


@dataclass(frozen=True, slots=True)
class ObservedColumn:
    """A quantity per record; ``data_type`` is its SQL type, in Databricks' spelling."""

    name: str
    kind: Kind
    data_type: str


@dataclass(frozen=True, slots=True)
class Observation:
    """What a source says about a window's records: ``frame`` has ``databricks_request_id`` (each at most once) and
    one column per item of ``columns``, under its name. A column of numbers or categories may be lists: of several values
    per record, each of which counts.
    """

    frame: pl.DataFrame
    columns: tuple[ObservedColumn, ...]


class WindowSource(Protocol):
    """Something that can be observed of records.

    ``name`` is unique among the sources of a runner; ``version`` changes whenever the same record would give another
    value, and then the windows' sketches are made anew.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def read(self, tables: EndpointTables, window: Window, *, version: int | None = None) -> Observation:
        """The columns of the records in ``window``, with the inference table at ``version`` (``None``: newest).

        A column that no record of the window has may be left out. Raises what the tables raise.
        """
        ...
