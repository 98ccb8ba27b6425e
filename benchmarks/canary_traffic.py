"""Calls of many users to a canary, as rows of an inference table, for :mod:`benchmarks.rollout`.

Each user has an error rate and a pace of his own (2 % and 300 ms in the middle), so calls of one user are not
independent. Every call has one random number that says whether it fails under the control and whether it fails
under the treatment; so it is known, and not estimated, which failures would not have happened.
"""

from __future__ import annotations

import math
from datetime import datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from collector.catalog import PAYLOAD_SCHEMA
from experiments.assignment import Assignment, assign
from experiments.experiment import Experiment

USERS = 20_000
ERROR_RATE, LATENCY_MS = 0.02, 300.0


class Traffic:
    """Calls as they come in. The treatment multiplies the error rate with ``errors`` and the times with ``latency``.

    ``harmed`` are the users who met a failure that the control would not have had, ``treated`` those whom the
    treatment answered.
    """

    def __init__(self, errors: float, latency: float, rng: np.random.Generator) -> None:
        self._errors = errors
        self._latency = latency
        self._rng = rng
        self._proneness = np.exp(rng.normal(-0.125, 0.5, USERS))  # mean 1
        self._pace = rng.normal(math.log(LATENCY_MS), 0.2, USERS)
        self._empty = pl.DataFrame(PAYLOAD_SCHEMA.empty_table())
        self._frames = [self._empty]
        self._assigned: tuple[int, dict[int, Assignment]] = (-1, {})
        self.requests = 0
        self.harmed: set[int] = set()
        self.treated: set[int] = set()

    def payload(self) -> pl.LazyFrame:
        """All calls so far, in the inference table's shape."""
        if len(self._frames) > 16:  # one frame of many small ones takes longer to read
            self._frames = [pl.concat(self._frames, rechunk=True)]
        return pl.concat(self._frames).lazy()

    def flow(self, experiment: Experiment, since: datetime, seconds: float, per_second: float) -> None:
        """The calls of the ``seconds`` after ``since``, answered by the experiment's variants with its weights of now."""
        count = int(self._rng.poisson(per_second * seconds))
        if not count:
            return
        users = self._rng.integers(0, USERS, count)
        decided = self._decide(experiment, users)
        treated = np.array([each.variant is not experiment.control for each in decided])
        luck, chance = self._rng.random(count), ERROR_RATE * self._proneness[users]
        failed_by_control, failed_by_treatment = luck < chance, luck < chance * self._errors
        failed = np.where(treated, failed_by_treatment, failed_by_control)
        duration = np.exp(self._rng.normal(self._pace[users], 0.5))
        duration *= np.where(treated, self._latency, 1.0)
        at = np.sort(self._rng.integers(0, int(seconds * 1e6), count))
        self.harmed.update(users[treated & failed_by_treatment & ~failed_by_control].tolist())
        self.treated.update(users[treated].tolist())
        names = pl.DataFrame(
            {
                "databricks_request_id": np.arange(self.requests, self.requests + count),
                "unit": users,
                "execution_duration_ms": np.rint(duration).astype(np.int64),
                "status_code": np.where(failed, 500, 200),
                "request_time": at,
                "served_entity": [each.variant.served_entity for each in decided],
                "variant": [each.variant.name for each in decided],
                "propensity": [each.propensity for each in decided],
            }
        )
        frame = names.with_columns(
            pl.col("databricks_request_id", "unit").cast(pl.String),
            (pl.lit(since) + pl.col("request_time").cast(pl.Duration("us"))).alias("request_time"),
            pl.when(pl.col("status_code") == 500).then(pl.lit("upstream_status")).alias("error_type"),
            pl.lit("chat").alias("endpoint"),
            pl.lit(experiment.name).alias("experiment"),
            pl.lit(experiment.phase).alias("phase"),
            *(pl.lit(value=False).alias(flag) for flag in ("is_shadow", "is_stream", "client_disconnected")),
        )
        frame = frame.cast({name: self._empty.schema[name] for name in frame.columns})
        self._frames.append(pl.concat([self._empty, frame], how="diagonal"))
        self.requests += count

    def _decide(self, experiment: Experiment, users: NDArray[np.int64]) -> list[Assignment]:
        if self._assigned[0] != experiment.phase:
            self._assigned = (experiment.phase, {})
        known = self._assigned[1]
        decided = []
        for user in users.tolist():
            assignment = known.get(user)
            if assignment is None:
                assignment = assign(experiment, str(user))
                assert assignment is not None, "the share is 100 %"
                known[user] = assignment
            decided.append(assignment)
        return decided
