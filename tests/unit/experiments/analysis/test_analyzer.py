"""Whole analyses over real Delta tables and a real SQLite database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_ind

from collector.catalog import EndpointTables
from experiments.analysis.analyzer import Analyzer
from experiments.assignment import assign
from experiments.experiment import Experiment, Variant
from experiments.report import Report
from experiments.store import ExperimentStore
from servelens.clock import ManualClock
from servelens.errors import Conflict, Unavailable
from tests.new_database import new_database
from tests.unit.experiments.records import (
    CHAMPION,
    START,
    experiment,
    payload,
    payload_frame,
    score,
    score_frame,
    tables,
)


class Scene:
    """Tables, store and analyzer of endpoint ``chat``, and traffic as a proxy would have recorded it."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(START + timedelta(days=2))
        self.database = new_database(folder / "servelens.db")
        self.tables: EndpointTables = tables(folder / "tables")
        self.store = ExperimentStore(self.database, self.clock)
        self.analyzer = Analyzer(self.tables, self.store, self.clock)
        self.rng = np.random.default_rng(11)

    def look(self, definition: Experiment) -> Report:
        """Start the experiment, or take it on to a new phase, and look at it."""
        self.store.register(definition)
        return self.analyzer.analyze(definition.name)

    def write(self, rows: list[dict[str, Any]], scores: list[dict[str, Any]] | None = None) -> None:
        self.tables.payload.append(payload_frame(rows).collect())
        if scores:
            self.tables.scores.append(score_frame(scores).collect())

    def traffic(
        self, definition: Experiment, users: range, *, slower: float = 1.0, failing: float = 0.0
    ) -> list[dict[str, Any]]:
        """Up to four requests a user; the treatments are slower by a factor and fail more often."""
        rows = []
        for user in users:
            assignment = assign(definition, f"user-{user}")
            if assignment is None:
                continue
            treated = assignment.variant is not definition.control
            pace = self.rng.normal(5.0, 0.3)
            for _ in range(self.rng.integers(1, 5)):
                failed = bool(self.rng.random() < 0.02 + (failing if treated else 0.0))
                duration = np.exp(self.rng.normal(pace, 0.4)) * (slower if treated else 1.0)
                rows.append(
                    payload(
                        f"user-{user}",
                        assignment.variant.name,
                        propensity=assignment.propensity,
                        phase=definition.phase,
                        execution_duration_ms=round(float(duration)),
                        status_code=500 if failed else 200,
                        error_type="upstream_status" if failed else None,
                    )
                )
        return rows


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    found = Scene(tmp_path)
    yield found
    found.database.dispose()


def test_a_slower_challenger_is_found_and_the_report_is_plain_json(scene: Scene) -> None:
    definition = experiment(secondary_metrics=("success_rate", "score:perplexity", "output_tokens"))
    rows = scene.traffic(definition, range(400), slower=1.5)
    scene.write(rows, [score(row, float(scene.rng.lognormal(3, 0.5))) for row in rows])
    report = scene.look(definition).to_dict()

    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["units"] == 400
    assert report["exposures"]["champion"] + report["exposures"]["challenger"] == 400
    assert report["sample_ratio"]["ok"] is True
    assert (report["payload_version"], report["scores_version"]) == (1, 1)
    latency, success, perplexity, tokens = report["metrics"]
    (comparison,) = latency["comparisons"]
    assert comparison["verdict"] == "worse"
    assert comparison["relative_lift"]["low"] < 0.5 < comparison["relative_lift"]["high"]
    assert comparison["always_valid"]["running_p"] <= comparison["always_valid"]["p_value"] < 0.05
    assert comparison["fixed"]["method"] == "delta method"
    assert report["verdict"].startswith("challenger is worse than champion on typical latency: ")
    assert perplexity["comparisons"][0]["verdict"] == "inconclusive"
    assert success["comparisons"][0]["verdict"] == "inconclusive"
    assert tokens["comparisons"][0]["reason"].startswith("all values are the same")
    assert scene.store.latest("tone") == report


def test_one_request_a_user_agrees_with_scipy(scene: Scene) -> None:
    definition = experiment()
    rows = [row for row in scene.traffic(definition, range(300)) if row["status_code"] == 200]
    first = {row["unit"]: row for row in reversed(rows)}
    scene.write(list(first.values()))
    report = scene.look(definition)
    log_ms = {
        variant: [np.log(row["execution_duration_ms"]) for row in first.values() if row["variant"] == variant]
        for variant in ("champion", "challenger")
    }
    reference = ttest_ind(log_ms["challenger"], log_ms["champion"], equal_var=False)
    latency = report.metrics[0]
    assert latency.comparisons[0].fixed.p_value == pytest.approx(float(reference.pvalue))
    assert latency.comparisons[0].difference == pytest.approx(
        np.mean(log_ms["challenger"]) - np.mean(log_ms["champion"])
    )
    assert latency.variants["champion"].estimate == pytest.approx(np.exp(np.mean(log_ms["champion"])))


def test_rates_know_that_higher_success_is_better(scene: Scene) -> None:
    definition = experiment(
        primary_metric="success_rate", secondary_metrics=("error_rate",), planned_units=600
    )
    scene.write(scene.traffic(definition, range(600), failing=0.2))
    report = scene.look(definition)
    assert [metric.comparisons[0].verdict for metric in report.metrics] == ["worse", "worse"]
    assert "challenger is worse on error rate" in report.verdict


def test_kappa_and_the_smallest_p_value_outlive_a_look(scene: Scene) -> None:
    definition = experiment()
    scene.write(scene.traffic(definition, range(40)))
    first = scene.look(definition)
    assert scene.store.kappa("tone", "latency_ms", "challenger") is None, "too few units to freeze it on"
    scene.write(scene.traffic(definition, range(40, 160)))
    second = scene.look(definition)
    kappa = scene.store.kappa("tone", "latency_ms", "challenger")
    assert kappa is not None
    scene.write(scene.traffic(definition, range(160, 400)))
    third = scene.look(definition)
    assert scene.store.kappa("tone", "latency_ms", "challenger") == kappa
    looks = [look.metrics[0].comparisons[0].always_valid for look in (first, second, third)]
    running = [look.running_p for look in looks]
    assert running == [min(look.p_value for look in looks[: n + 1]) for n in range(3)]
    assert len(scene.store.history("tone")) == 3


def test_a_skewed_split_is_not_trusted_and_leaves_no_evidence(scene: Scene) -> None:
    definition = experiment()
    rows = scene.traffic(definition, range(600), slower=3.0)
    lost = [row for row in rows if row["variant"] == "champion" or int(row["unit"][5:]) % 3 == 0]
    scene.write(lost)
    report = scene.look(definition)
    assert not report.sample_ratio.ok
    assert report.verdict.startswith("The data cannot be trusted: ")
    assert all(c.verdict == "inconclusive" for metric in report.metrics for c in metric.comparisons)
    assert scene.store.running_p("tone", "latency_ms", "challenger") is None


def test_a_change_of_weights_is_stratified_and_not_pooled(scene: Scene) -> None:
    """The service got slower when the challenger's share grew; pooled, the challenger would look slow."""
    first = experiment(
        control=replace(CHAMPION, weight=90), treatments=(Variant("challenger", "smol-hot", 10),)
    )
    second = first.with_weights({"champion": 30, "challenger": 70})
    rows = scene.traffic(first, range(800))
    scene.write(rows)
    scene.store.register(first)
    later = scene.traffic(second, range(400, 1200))
    scene.write([{**row, "execution_duration_ms": 2 * row["execution_duration_ms"]} for row in later])
    report = scene.look(second)
    assert report.sample_ratio.ok
    assert report.units == 1200
    latency = report.metrics[0]
    assert latency.comparisons[0].verdict == "inconclusive"
    assert abs(latency.comparisons[0].difference or 1.0) < 0.1
    medians = {
        name: np.median(
            [r["execution_duration_ms"] * (1 + r["phase"]) for r in rows + later if r["variant"] == name]
        )
        for name in ("champion", "challenger")
    }
    assert medians["challenger"] > 1.3 * medians["champion"], "the trap must be there"


def test_phases_that_were_never_registered_are_judged_by_the_logged_propensities(scene: Scene) -> None:
    old = experiment(
        control=replace(CHAMPION, weight=80), treatments=(Variant("challenger", "smol-hot", 20),)
    )
    scene.write(scene.traffic(old, range(500)))
    report = scene.look(replace(experiment(), phase=1))
    assert report.sample_ratio.ok
    assert report.sample_ratio.expected["champion"] == pytest.approx(400)


def test_several_treatments_share_the_error_probability(scene: Scene) -> None:
    definition = experiment(
        control=replace(CHAMPION, weight=40),
        treatments=(Variant("warm", "smol-warm", 30), Variant("hot", "smol-hot", 30)),
    )
    scene.write(scene.traffic(definition, range(300), slower=2.0))
    report = scene.look(definition)
    assert report.alpha == 0.025
    assert [c.treatment for c in report.metrics[0].comparisons] == ["warm", "hot"]
    assert "warm is worse than champion" in report.verdict
    assert "hot is worse than champion" in report.verdict


def test_before_any_traffic_there_is_nothing_to_judge(scene: Scene) -> None:
    report = scene.look(experiment(secondary_metrics=("score:toxicity",)))
    assert report.units == 0
    assert report.payload_version is None
    assert report.verdict == "There is nothing to judge yet: no traffic of this experiment has been recorded."
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_single_user_is_inconclusive(scene: Scene) -> None:
    scene.write([payload("ann", "champion")])
    report = scene.look(experiment())
    (comparison,) = report.metrics[0].comparisons
    assert comparison.verdict == "inconclusive"
    assert comparison.always_valid.p_value is None
    assert "challenger has no measured records yet" in report.verdict


def test_a_metric_that_never_arrives_is_inconclusive_and_counted(scene: Scene) -> None:
    definition = experiment(primary_metric="score:toxicity", secondary_metrics=())
    rows = scene.traffic(definition, range(50))
    scene.write(rows)
    metric = scene.look(definition).metrics[0]
    assert metric.comparisons[0].verdict == "inconclusive"
    excluded = [variant.excluded_reasons for variant in metric.variants.values()]
    assert sum(reasons["not_scored_yet"] for reasons in excluded) == len(rows)


def test_records_after_the_stop_do_not_count(scene: Scene) -> None:
    definition = experiment()
    scene.write(scene.traffic(definition, range(100)))
    scene.store.register(definition)
    scene.store.stop("tone")
    late = scene.traffic(definition, range(100, 200))
    scene.write(
        [{**row, "request_time": scene.clock.now(), "request_date": scene.clock.now().date()} for row in late]
    )
    report = scene.look(definition)
    assert (report.units, report.state) == (100, "stopped")
    assert report.sample_ratio.decided_by == "chi_squared"
    assert "No verdict on" in report.verdict


def test_a_changed_definition_is_refused(scene: Scene) -> None:
    scene.look(experiment())
    with pytest.raises(Conflict, match="unit"):
        scene.look(experiment(unit="session"))


def test_unreadable_tables_are_unavailable(scene: Scene) -> None:
    scene.write(scene.traffic(experiment(), range(20)))
    for file in Path(scene.tables.payload.uri).rglob("*.parquet"):
        file.unlink()
    with pytest.raises(Unavailable, match="chat"):
        scene.look(experiment())
