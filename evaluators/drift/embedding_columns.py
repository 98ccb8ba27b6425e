"""What the texts of a window's records say, as vectors: ``prompt_embedding`` and ``response_embedding``.

The vectors are those that the evaluator ``embedding`` has written by now; give it time by the window's lag. A record has
one vector a side: where several models made some, that of the model which has most of the window, else the newest. The
sketch keeps models apart.

Invariant: memory is bounded. Of more than ``most`` records with a vector, those with the smallest hashes of their ids are
read, which is a uniform sample; the others have a null.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar, Final

import polars as pl

from collector.catalog import EndpointTables
from evaluators.drift.sketches.vectors import VECTOR, keys
from evaluators.drift.sources import REQUEST_ID, Kind, Observation, ObservedColumn
from evaluators.drift.windows import Window
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

MOST_RECORDS: Final = 100_000
_COLUMNS: Final = (("request", "prompt_embedding"), ("response", "response_embedding"))


@dataclass(frozen=True, slots=True)
class EmbeddingColumns:
    """A :class:`~evaluators.drift.sources.WindowSource` over ``<prefix>_embeddings``."""

    most: int = MOST_RECORDS
    name: ClassVar[str] = "embeddings"
    version: ClassVar[str] = "1"

    def read(self, tables: EndpointTables, window: Window, *, version: int | None = None) -> Observation:
        """One column per side that a record of the window has a vector of."""
        table = tables.embeddings
        records = table.scan(since=window.start, until=window.end)
        try:
            ids = records.select(pl.col(REQUEST_ID).unique()).collect()[REQUEST_ID].drop_nulls()
            found = pl.DataFrame({REQUEST_ID: ids}).with_columns(keys(ids))
            if found.height > self.most:
                logger.info("embeddings sampled: table=%s records=%d of=%d", table.uri, self.most, ids.len())
                found = found.bottom_k(self.most, by="key")
            vectors = (
                records.select(
                    REQUEST_ID,
                    "target",
                    pl.format("{}@{}", "model", "evaluator_version").alias("model"),
                    "vector",
                    "embedded_at",
                )
                .join(found.lazy(), on=REQUEST_ID)
                .collect()
            )
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Unavailable(f"the table cannot be read: {error}", field=table.uri) from error
        frame = found.select(REQUEST_ID)
        columns = []
        for target, name in _COLUMNS:
            side = _one_each(vectors.filter(target=target))
            if side.is_empty():
                continue
            column = side.select(REQUEST_ID, pl.struct("key", "model", "vector").cast(VECTOR).alias(name))
            frame = frame.join(column, on=REQUEST_ID, how="left")
            columns.append(ObservedColumn(name, Kind.VECTOR, "array<float>"))
        return Observation(frame, tuple(columns))


def _one_each(vectors: pl.DataFrame) -> pl.DataFrame:
    return (
        vectors.with_columns(pl.len().over("model").alias("of_model"))
        .sort("of_model", "embedded_at", "model", descending=True)
        .unique(REQUEST_ID, keep="first")
    )
