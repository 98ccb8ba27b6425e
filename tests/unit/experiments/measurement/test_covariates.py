from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from experiments.measurement.covariates import (
    covariate_sums,
    earlier_records,
    history_begins,
    unit_means,
)
from experiments.measurement.exposures import exposures
from experiments.measurement.units import settled, unit_rows
from experiments.measurement.values import reading_for
from tests.unit.experiments.records import START, experiment, payload, payload_frame


def _definition(**changes: Any) -> Any:
    return experiment(
        **{"primary_metric": "output_tokens", "secondary_metrics": (), "cuped_days": 7.0, **changes}
    )


def test_a_history_is_the_mean_of_all_that_the_unit_was_answered() -> None:
    rows = [
        payload("ann", "champion", experiment="earlier", output_tokens=10),
        payload("ann", "champion", output_tokens=99),
        payload("ann", None, experiment=None, output_tokens=30),
        payload(
            "ann",
            "champion",
            output_tokens=99,
            status_code=500,
            error_type="upstream_status",
            experiment="earlier",
        ),
        payload("ann", "champion", output_tokens=99, is_shadow=True, experiment="earlier"),
        payload("bob", None, experiment="other", output_tokens=None),
        payload("cyd", None, served_entity=None, output_tokens=5),
        payload(None, None, output_tokens=5),
    ]
    reading = reading_for(_definition(secondary_metrics=("output_tokens:p95",)))
    means = unit_means(earlier_records(payload_frame(rows), reading).collect(), reading)
    units = pl.Series(["ann", "bob"]).hash()
    expected = sorted([(units[0], 20.0, None), (units[1], None, None)])
    assert means.rows() == expected


def test_sums_against_numpy() -> None:
    rng = np.random.default_rng(6)
    before = {f"user-{n}": float(rng.poisson(30)) for n in range(40)}
    earlier = [
        payload(unit, None, experiment=None, output_tokens=int(value)) for unit, value in before.items()
    ]
    rows = [
        payload(f"user-{n}", ("champion", "challenger")[n % 2], output_tokens=int(rng.poisson(20)))
        for n in rng.integers(0, 60, 200).tolist()
    ]
    rows.append(payload("user-0", "champion", output_tokens=None))
    rows.append(payload("unmeasured", "champion", output_tokens=None))
    reading = reading_for(_definition())
    history = unit_means(earlier_records(payload_frame(earlier), reading).collect(), reading)
    units = settled(unit_rows(exposures(payload_frame(rows), reading).collect(), reading, {}))
    count, *sums = covariate_sums(units.counted, history, reading)[0, 0, 0]
    by_unit: dict[str, list[int]] = {}
    for row in rows:
        if row["variant"] == "champion" and row["output_tokens"] is not None:
            by_unit.setdefault(row["unit"], []).append(row["output_tokens"])
    expected: list[float] = []
    for known in (True, False):
        mine = [values for unit, values in by_unit.items() if (unit in before) == known]
        n, s = (
            np.array([len(values) for values in mine], float),
            np.array([sum(values) for values in mine], float),
        )
        expected += [len(mine), n.sum(), s.sum(), n @ n, n @ s, s @ s]
    x = np.array([before[unit] for unit in by_unit if unit in before])
    n = np.array([len(by_unit[unit]) for unit in by_unit if unit in before], float)
    s = np.array([sum(by_unit[unit]) for unit in by_unit if unit in before], float)
    assert count == len(by_unit)
    assert sums == pytest.approx([*expected, x.sum(), x @ x, n @ x, s @ x])


@pytest.mark.parametrize(
    ("changes", "since", "begins"),
    [
        ({}, START, START - timedelta(days=7)),
        ({"cuped_days": 0.0}, START, None),
        ({"unit": "request"}, START, None),
        ({}, None, None),
    ],
)
def test_only_units_that_come_back_have_a_history(changes: dict[str, Any], since: Any, begins: Any) -> None:
    assert history_begins(reading_for(_definition(**changes)), since) == begins
