"""Keeps the vectors that an evaluator gives beside its scores, in the endpoint's embeddings table.

Invariant: a side of a record has one vector of one model and version, also across crashes. The vectors of a batch are
committed before its scores, with the same application transaction. So after SIGKILL between the two commits the batch is
scored again, perhaps cut otherwise, and those of its vectors that are in the table already are left out; no score is ever
there whose vectors are not. What is in the table is asked for by request ids, on which files are pruned.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from collector.catalog import EMBEDDING_SCHEMA
from collector.table import Table
from evaluators.evaluator import Evaluator, Score
from servelens.clock import Clock
from servelens.errors import Unavailable

logger = logging.getLogger(__name__)

_ID: Final = "databricks_request_id"
_TARGETS: Final = ("request", "response")
_KEY: Final = (_ID, "target")
_COPIED: Final = (_ID, "request_date", "request_time", "endpoint", "served_entity", "variant")


class VectorWriter:
    """Writes to ``table``, which need not exist. One per evaluator; evaluators that give no vectors cost nothing."""

    def __init__(self, table: Table, clock: Clock) -> None:
        self._table = table
        self._clock = clock

    def keep(
        self,
        records: pl.DataFrame,
        scores: Sequence[Score],
        evaluator: Evaluator,
        transactions: Mapping[str, int] | None = None,
    ) -> int:
        """Append the vectors of ``scores``, one score per row of ``records``, that are not in the table; how many.

        ``transactions`` are those that the scores' commit will carry. A vector that is not finite or has another
        length than the batch's others is left out and logged. Raises
        :class:`~servelens.errors.Conflict` when somebody else writes the same batch, and what the table raises.
        """
        rows = self._rows(records, scores, evaluator)
        if rows is None:
            return 0
        fresh = self._fresh(rows, evaluator)
        if fresh.num_rows == 0:
            return 0
        wanted = transactions or {}
        done = self._table.transaction_versions(list(wanted))
        # What has come that far already says nothing about these rows: they are of another version of the model, or
        # the batch was cut otherwise.
        carried = {
            name: version
            for name, version in wanted.items()
            if (known := done[name]) is None or known < version
        }
        self._table.append(fresh, transactions=carried)
        return int(fresh.num_rows)

    def _rows(self, records: pl.DataFrame, scores: Sequence[Score], evaluator: Evaluator) -> pa.Table | None:
        places: list[int] = []
        targets: list[str] = []
        vectors: list[np.ndarray[tuple[int], np.dtype[np.float32]]] = []
        refused = 0
        for place, score in enumerate(scores):
            for target in _TARGETS:
                # Third-party evaluators need not build their scores with our class.
                given = getattr(score, "vectors", {}).get(target)
                if given is None:
                    continue
                vector = np.asarray(given, dtype=np.float32)
                right = vector.ndim == 1 and vector.size > 0 and bool(np.isfinite(vector).all())
                if not right or (vectors and vector.size != vectors[0].size):
                    refused += 1
                    continue
                places.append(place)
                targets.append(target)
                vectors.append(vector)
        if refused:
            logger.warning(
                "vectors left out, not finite or of another length: evaluator=%s vectors=%d",
                evaluator.name,
                refused,
            )
        if not vectors:
            return None
        flat = np.concatenate(vectors)
        ends = np.arange(len(vectors) + 1, dtype=np.int32) * vectors[0].size
        about = records.select(_COPIED)[places].with_columns(
            pl.Series("target", targets, dtype=pl.String),
            pl.lit(evaluator.model).alias("model"),
            pl.lit(evaluator.version).alias("evaluator_version"),
            pl.lit(self._clock.now()).cast(pl.Datetime("us", "UTC")).alias("embedded_at"),
        )
        lists = pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(flat, pa.float32()))
        return about.to_arrow().append_column("vector", lists).select(EMBEDDING_SCHEMA.names)

    def _fresh(self, rows: pa.Table, evaluator: Evaluator) -> pa.Table:
        keys = pl.DataFrame(rows.select([*_KEY, "request_date"])).with_row_index("place")
        ids, days = keys[_ID], keys["request_date"]
        same = (
            pl.col("request_date").is_between(pl.lit(days.min()), pl.lit(days.max()))
            & pl.col(_ID).is_between(pl.lit(ids.min()), pl.lit(ids.max()))
            & (pl.col("model") == evaluator.model)
            & (pl.col("evaluator_version") == evaluator.version)
        )
        try:
            there = self._table.scan().filter(same).select(_KEY).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Unavailable(f"the table cannot be read: {error}", field=self._table.uri) from error
        if there.is_empty():
            return rows
        return rows.take(keys.join(there, on=_KEY, how="anti").sort("place")["place"].to_arrow())
