"""What runs on a node of the cluster: the evaluator in a process of its own, which is given portions one by one.

Invariant: an answer is a whole portion's scores, or an error of ours; nothing is written. What a text does to the model is
dealt with here as on one machine (:mod:`evaluators.workers.isolated`). Each answer says which evaluator gave it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from evaluators.evaluator import Score, unscored
from evaluators.ray_cluster.portion import Portion, TableAddress
from evaluators.registry import EvaluatorSpec
from evaluators.workers.isolated import IsolatedEvaluator
from evaluators.workers.wire import packed_error, packed_score, unpacked_text
from servelens.errors import Unavailable


class ScoringActor:
    """Loads nothing before :meth:`load`, so it is quick to say that it has its place."""

    def __init__(
        self,
        spec: str,
        models_dir: str,
        devices: Sequence[str],
        threads: int,
        timeout_s: float,
        start_timeout_s: float,
    ) -> None:
        self._evaluator = IsolatedEvaluator(
            EvaluatorSpec.from_json(spec),
            Path(models_dir),
            devices=devices,
            threads=threads,
            timeout_s=timeout_s,
            start_timeout_s=start_timeout_s,
        )
        self._tables: dict[str, Any] = {}

    def where(self) -> str:
        """The node."""
        return socket.gethostname()

    def load(self) -> tuple[Any, ...]:
        """``ready``, what the evaluator says of itself and its devices; or ``refused`` and the error."""
        try:
            return "ready", astuple(self._evaluator.about), self._evaluator.device
        except Exception as error:  # noqa: BLE001 - it is told to the driver
            return "refused", packed_error(error)

    def score(self, portion: Portion) -> tuple[Any, ...]:
        """``scores``, what the evaluator says of itself and one packed score for each item; or ``refused`` and the error."""
        try:
            about = astuple(self._evaluator.about)
            if portion.table is None:
                scores = self._evaluator.score([unpacked_text(each) for each in portion.items])
            else:
                scores = self._of_records(portion, portion.table)
        except Exception as error:  # noqa: BLE001 - it is told to the driver
            return "refused", packed_error(error)
        return "scores", about, [packed_score(score) for score in scores]

    def close(self) -> None:
        """End the evaluator's process."""
        self._evaluator.close()

    def _of_records(self, portion: Portion, address: TableAddress) -> list[Score]:
        """Of the records that are still there; the others have a reason. The newest version is read, since files of an
        older one may be gone, and a record never changes."""
        import polars as pl

        from collector.catalog import PAYLOAD_SCHEMA
        from collector.table import Table
        from evaluators.runs.record_scores import RECORD_GONE, columns_of, scores_of

        key, day = "databricks_request_id", pl.col("request_date")
        ids = pl.DataFrame({key: portion.items}, schema={key: pl.String})
        table = self._tables.get(address.uri)
        if table is None:
            table = Table(address.uri, PAYLOAD_SCHEMA, storage_options=address.options)
            self._tables[address.uri] = table
        version = table.version()
        if version is None or version < address.version:
            raise Unavailable(
                f"node {socket.gethostname()} sees version {version} of the table, not {address.version}",
                field=address.uri,
                fix="Keep tables.root in storage that all nodes reach, or set ray.read_on_nodes to false.",
            )
        # Ids sort by time: the files that cannot have them are told by their statistics.
        frame = table.scan().filter(
            pl.col(key).is_between(pl.lit(ids[key].min()), pl.lit(ids[key].max())),
            pl.col(key).is_in(portion.items),
        )
        if portion.first_day is not None and portion.last_day is not None:
            frame = frame.filter(day.is_between(pl.lit(portion.first_day), pl.lit(portion.last_day)))
        try:
            found = frame.select(columns_of(self._evaluator, PAYLOAD_SCHEMA.names)).collect()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise Unavailable(f"the table cannot be read: {error}", field=address.uri) from error
        there = ids.unique().join(found.unique(key), on=key, how="inner")
        scores = dict(zip(there[key], scores_of(there, self._evaluator), strict=True))
        return [scores.get(each) or unscored(RECORD_GONE) for each in portion.items]
