"""From records with vectors and tabular calls to the verdict, by the runner."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from collector.catalog import EndpointTables
from evaluators.drift.runner import DriftRunner
from evaluators.drift.verdict import drifted
from evaluators.drift.windows import Granularity, Window
from evaluators.runs.run_history import RunHistory
from servelens.clock import ManualClock
from tests.unit.evaluators.drift.test_embedding_columns import vector_rows
from tests.unit.evaluators.inference_rows import ENDPOINT, payload_rows

HOUR = Granularity.parse("1 hour")
CURRENT = HOUR.containing(datetime(2026, 3, 4, 11, 30, tzinfo=UTC))


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(CURRENT.end + timedelta(minutes=5))


def fill(tables: EndpointTables, window: Window, generator: np.random.Generator, shift: float) -> None:
    """120 calls of three examples each, and a vector of each prompt."""
    requests = [
        json.dumps(
            {
                "inputs": {
                    "size": (generator.normal(size=3) + shift).tolist(),
                    "city": generator.choice(["Oslo", "Rome"], size=3).tolist(),
                }
            }
        )
        for _ in range(120)
    ]
    responses = [json.dumps({"predictions": generator.normal(size=3).tolist()}) for _ in range(120)]
    payload = payload_rows(120, window.start, api="invocations", request=requests, response=responses)
    tables.payload.append(payload)
    vectors = generator.normal(size=(120, 16))
    vectors[:, 3] += 2 * shift
    tables.embeddings.append(vector_rows(payload, vectors.tolist()))


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_shift_of_a_feature_and_of_the_texts_is_found_and_nothing_else(
    tables: EndpointTables, history: RunHistory, clock: ManualClock, shift: float
) -> None:
    generator = np.random.default_rng(7)
    fill(tables, HOUR.before(CURRENT), generator, 0.0)
    fill(tables, CURRENT, generator, shift)
    DriftRunner(tables, ENDPOINT, history, clock, granularity=HOUR).run()
    profiles = tables.profiles.scan().filter(pl.col("window").struct.field("end") == CURRENT.end).collect()
    counts = dict(profiles.select("column_name", "count").iter_rows())
    assert (counts[":table"], counts["feature:size"], counts["prompt_embedding"]) == (120, 360, 120)
    verdicts = drifted(tables.drift.scan().collect())
    found = set(verdicts.filter("drifted")["column_name"])
    assert found == ({"feature:size", "prompt_embedding"} if shift else set())
    tested = set(verdicts.filter(pl.col("p_value").is_not_null())["column_name"])
    assert {"feature:city", "prediction", "prompt_embedding"} <= tested
