"""The benchmark's quick form: a few rollouts from start to end, over real assignment, measurement and decisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from benchmarks.canary_traffic import ERROR_RATE, Traffic
from benchmarks.rollout import SCENARIOS, START, canary, simulate, summary
from experiments.analysis.look import look
from experiments.analysis.memory import TransientMemory
from experiments.analysis.moment import Moment
from experiments.decision_log import DecisionLog
from experiments.experiment import Experiment
from experiments.measurement.measure import Measurements
from experiments.report import Report
from servelens.clock import ManualClock
from servelens.database import Database
from tests.new_database import new_database

ERRORS, SLOW, EQUAL, BETTER, SILENT = SCENARIOS


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = new_database(tmp_path / "servelens.db")
    yield database
    database.dispose()


def test_bad_canaries_are_taken_back_and_others_are_not(
    database: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    errors, slow, equal, silent = (
        simulate(database, scenario, 1, 0) for scenario in (ERRORS, SLOW, EQUAL, SILENT)
    )
    assert (errors.outcome, slow.outcome, equal.outcome) == ("rolled_back", "rolled_back", "promoted")
    assert (silent.outcome, silent.last, silent.requests) == (None, "insufficient_data", 0)
    assert 0 < errors.harmed < 100
    assert equal.harmed == slow.harmed == 0
    figures = summary([errors, slow, equal, replace(equal, scenario=BETTER.name), silent])
    assert figures["bad_rolled_back"] == figures["good_promoted"] == figures["no_traffic_waits"] == 1.0
    assert (figures["false_rollback"], figures["runs"]) == (0.0, 1)
    assert figures["median_users_harmed"] == errors.harmed
    printed = capsys.readouterr().out
    assert "twice the errors" in printed
    log = DecisionLog(database, ManualClock(START))
    decisions = [row.decision for row in log.history(f"{EQUAL.name}-1-0")][::-1]
    assert [each for each in decisions if each != "hold"] == ["advance", "advance", "promote"]


def test_a_run_can_be_repeated(database: Database, tmp_path: Path) -> None:
    first = simulate(database, SLOW, 3, 1)
    other = new_database(tmp_path / "other.db")
    assert simulate(other, SLOW, 3, 1) == first
    other.dispose()


def test_the_analysis_can_be_another_one(database: Database) -> None:
    def open_for_ever(
        experiment: Experiment, measurements: Measurements, memory: TransientMemory, moment: Moment
    ) -> Report:
        report = look(experiment, measurements, memory, moment)
        still_open = tuple(
            replace(each, upper=1.0, running_log_e=0.0, state="open") for each in report.guardrails
        )
        return replace(report, guardrails=still_open)

    scenario = replace(EQUAL, look_s=1_800.0, per_second=3.0)
    assert simulate(database, scenario, 1, 0, open_for_ever).outcome == "inconclusive"


def test_traffic_has_the_rates_that_it_says() -> None:
    traffic = Traffic(2.0, 1.3, np.random.default_rng(5))
    half = canary("half").with_weights({"v7": 50.0, "v8": 50.0})
    traffic.flow(half, START, 3_600.0, 20.0)
    frame = traffic.payload().collect()
    assert frame.height == traffic.requests
    assert frame["request_time"].is_sorted()
    by_variant = {
        row["variant"]: row
        for row in frame.group_by("variant")
        .agg(
            pl.len(),
            (pl.col("status_code") == 500).mean().alias("errors"),
            pl.col("execution_duration_ms").log().mean().exp().alias("ms"),
        )
        .to_dicts()
    }
    control, treatment = by_variant["v7"], by_variant["v8"]
    assert control["errors"] == pytest.approx(ERROR_RATE, rel=0.15)
    assert treatment["errors"] == pytest.approx(2 * ERROR_RATE, rel=0.15)
    assert treatment["ms"] / control["ms"] == pytest.approx(1.3, rel=0.02)
    # Each of the other variant's failures is a failure of the worse one too, so half of its failures are harm.
    assert len(traffic.harmed) == pytest.approx(treatment["len"] * ERROR_RATE, rel=0.15)
