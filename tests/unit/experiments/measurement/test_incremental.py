"""Looks that read what is new, held against looks that read everything, over real Delta tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from deltalake import DeltaTable

from collector.catalog import EndpointTables
from collector.deletion import delete_before, delete_keys
from experiments.experiment import Experiment, Price, Variant
from experiments.measurement.incremental import Measurer, Versions
from experiments.measurement.measured import Measurements
from experiments.measurement.touched import without
from experiments.statistics.cuped import CovariateMoments
from servelens.errors import Unavailable
from tests.unit.experiments.records import (
    START,
    experiment,
    feedback,
    feedback_frame,
    payload,
    payload_frame,
    score,
    score_frame,
    tables,
)

HOUR = timedelta(hours=1)


def everything_measured(**changes: Any) -> Experiment:
    values = {
        "primary_metric": "latency_ms",
        "secondary_metrics": (
            "success_rate",
            "error_rate",
            "latency_ms:p95",
            "latency_ms:over:150",
            "cost",
            "score:toxicity",
            "feedback:thumbs",
        ),
        "prices": (Price("smol", 1.0, 2.0), Price("smol-hot", 1.0, 2.0)),
        "outcome_window_s": 6 * 3600.0,
    }
    return experiment(**{**values, **changes})


class Traffic:
    """An endpoint whose traffic comes hour by hour, with late records, scores, second scores and feedback."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.tables = tables(folder / "tables")
        self.folder = folder / "state"
        self.rng = np.random.default_rng(seed)
        self.now = START
        self.written: list[dict[str, Any]] = []

    def hour(
        self, count: int = 60, *, phase: int = 0, torn: Sequence[int] = (), experiment: str = "tone"
    ) -> None:
        """``count`` records, some of them of hours ago; users have the variant of their number and phase."""
        rng, rows = self.rng, []
        for user in rng.integers(0, 90, count):
            treated = (int(user) + phase * (user % 3 == 0)) % 2 == 1
            if user in torn and rng.random() < 0.5:
                treated = not treated
            failed = rng.random() < 0.1
            age = timedelta(seconds=float(rng.exponential(1800 if rng.random() < 0.9 else 50_000)))
            rows.append(
                payload(
                    None if rng.random() < 0.03 else f"user-{user}",
                    "challenger" if treated else "champion",
                    served_entity="smol-hot" if treated else "smol",
                    phase=phase,
                    request_time=self.now - age,
                    execution_duration_ms=int(rng.lognormal(5, 0.7)),
                    input_tokens=int(rng.poisson(50)),
                    output_tokens=int(rng.poisson(20)),
                    status_code=502 if failed else 200,
                    error_type="upstream_connect" if failed else None,
                    propensity=float(rng.choice([0.25, 0.5])),
                    experiment=experiment if rng.random() < 0.95 else "other",
                )
            )
        self.tables.payload.append(payload_frame(rows).collect())
        self.written += rows
        self.now += HOUR

    def scores(self, count: int = 60, **changes: Any) -> None:
        """Scores of any records, among them second ones and ones that say nothing."""
        rows = []
        for record in self.rng.choice(np.array(self.written, dtype=object), count):
            unscored = {"unscored_reason": "empty"} if self.rng.random() < 0.1 else {}
            value = None if unscored else float(self.rng.choice([0.0, 0.25, 0.5, float("nan")]))
            at = self.now + timedelta(seconds=int(self.rng.integers(0, 3)))
            rows.append(score(record, value, "toxicity", scored_at=at, **unscored, **changes))
        rows += rows[:2]  # the same once more
        self.tables.scores.append(score_frame(rows).collect())

    def feedback(self, count: int = 40) -> None:
        rows = [
            feedback(record, float(self.rng.integers(0, 2)), after_s=float(self.rng.integers(0, 30_000)))
            for record in self.rng.choice(np.array(self.written, dtype=object), count)
        ]
        self.tables.feedback.append(feedback_frame(rows).collect())

    @property
    def versions(self) -> Versions:
        return versions(self.tables)

    def look(self, definition: Experiment, **changes: Any) -> Measurements:
        """An incremental look, which agrees with one pass over everything."""
        asked: dict[str, Any] = {"versions": self.versions, "as_of": self.now, **changes}
        found = Measurer(self.tables, self.folder).measure(definition, **asked)
        again = Measurer(self.tables, None).measure(
            definition, **{**asked, "pilots": found.pilots, "history": found.history}
        )
        assert_same(found, again)
        return found


def versions(of: EndpointTables) -> Versions:
    return Versions(of.payload.version(), of.scores.version(), of.feedback.version())


def assert_same(found: Measurements, expected: Measurements) -> None:
    """Equal in the counts, and up to rounding in the sums."""
    assert (found.exposures, found.records, found.excluded) == (
        expected.exposures,
        expected.records,
        expected.excluded,
    )
    for phase, logged in expected.propensities.items():
        assert found.propensities[phase] == pytest.approx(logged)
    for one, other in zip(found.metrics, expected.metrics, strict=True):
        name = one.metric.name
        assert one.excluded == other.excluded, name
        assert (one.histograms, one.pilot) == (other.histograms, other.pilot), name
        assert {day: list(cells) for day, cells in one.periods.items()} == {
            day: list(cells) for day, cells in other.periods.items()
        }, name
        pairs = [(one.cells[cell], other.cells[cell]) for cell in other.cells]
        pairs += [
            (one.periods[day][cell], other.periods[day][cell])
            for day in other.periods
            for cell in other.periods[day]
        ]
        for mine, theirs in pairs:
            assert mine.units == theirs.units, name
            assert _sums(mine) == pytest.approx(_sums(theirs), rel=1e-9, abs=1e-9), name
        assert list(one.covariates) == list(other.covariates), name
        for cell, covariates in other.covariates.items():
            mine_covariates = _flat(one.covariates[cell])
            assert mine_covariates == pytest.approx(_flat(covariates), rel=1e-9, abs=1e-9), name
        assert list(one.cross) == list(other.cross), name
        for key, sums in other.cross.items():
            assert _sums(one.cross[key]) == pytest.approx(_sums(sums), rel=1e-9, abs=1e-9), name


def _flat(of: CovariateMoments) -> list[float]:
    rest = [of.covariate, of.covariate_squared, of.records_covariate, of.total_covariate]
    return [*_sums(of.known), *_sums(of.new), *rest]


def _sums(of: Any) -> list[float]:
    return [getattr(of, name) for name in of.__dataclass_fields__]


@pytest.fixture
def traffic(tmp_path: Path) -> Traffic:
    return Traffic(tmp_path, seed=4)


def _reasons(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "anew" in record.getMessage()]


@pytest.mark.parametrize(("unit", "seed"), [("user", 1), ("user", 2), ("request", 1)])
def test_each_look_gives_what_one_pass_over_everything_gives(
    tmp_path: Path, unit: str, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="experiments.measurement")
    traffic = Traffic(tmp_path, seed)
    definition = everything_measured(unit=unit)
    for hour in range(8):
        traffic.hour(phase=hour // 4, torn=range(7, 12) if hour in (2, 3, 6) else ())
        if hour % 3 != 1:
            traffic.scores()
        if hour % 4 != 3:
            traffic.feedback()
        if hour == 5:
            DeltaTable(traffic.tables.payload.uri).optimize.compact()
        found = traffic.look(definition)
    traffic.now += 2 * HOUR
    found = traffic.look(definition)
    assert found.pilots
    assert found.metrics[-1].excluded["champion"]["no_feedback"] > 0
    assert found.metrics[-1].excluded["champion"]["window_open"] > 0
    assert ("unit_in_two_variants" in found.excluded) == (unit == "user")
    assert bool(found.metrics[0].cross) == (unit == "user")
    assert [reason for reason in _reasons(caplog) if "quantile can be placed" not in reason] == []


def test_a_look_reads_what_is_new(traffic: Traffic, caplog: pytest.LogCaptureFixture) -> None:
    definition = experiment()
    traffic.hour()
    traffic.look(definition)
    whole = sorted(Path(traffic.tables.payload.uri).rglob("*.parquet"))
    traffic.hour()
    asked: dict[str, Any] = {"versions": traffic.versions, "as_of": traffic.now}
    expected = Measurer(traffic.tables, None).measure(definition, **asked)
    for file in whole:
        file.unlink()
    assert_same(Measurer(traffic.tables, traffic.folder).measure(definition, **asked), expected)
    with pytest.raises(Unavailable, match="chat"):
        Measurer(traffic.tables, None).measure(definition, **asked)


def test_a_unit_may_turn_out_to_be_in_two_variants_long_after(traffic: Traffic) -> None:
    definition = experiment(primary_metric="latency_ms", secondary_metrics=("success_rate", "score:toxicity"))
    first = payload("ann", "champion", status_code=500, error_type="upstream_status")
    traffic.tables.payload.append(payload_frame([first, payload("bob", "champion")]).collect())
    traffic.tables.scores.append(score_frame([score(first, 0.5, "toxicity")]).collect())
    assert traffic.look(definition).metrics[0].excluded == {"champion": {"no_whole_answer": 1}}
    traffic.tables.payload.append(payload_frame([payload("ann", "challenger")]).collect())
    found = traffic.look(definition)
    assert found.excluded == {"unit_in_two_variants": 2}
    assert found.records == {"champion": 1}
    assert found.metrics[0].excluded == {}
    traffic.tables.payload.append(payload_frame([payload("ann", "champion")]).collect())
    traffic.tables.scores.append(score_frame([score(first, 0.7, "toxicity")]).collect())
    assert traffic.look(definition).excluded == {"unit_in_two_variants": 3}


def test_feedback_on_an_old_record_counts_if_it_was_given_in_time_and_written_late(traffic: Traffic) -> None:
    definition = experiment(primary_metric="feedback:thumbs", secondary_metrics=(), outcome_window_s=3600.0)
    record = payload("ann", "champion", request_time=START)
    traffic.tables.payload.append(payload_frame([record]).collect())
    traffic.tables.feedback.append(feedback_frame([feedback(record, 0.0, name="other")]).collect())
    traffic.now = START + HOUR / 2
    assert traffic.look(definition).metrics[0].excluded == {"champion": {"window_open": 1}}
    traffic.now = START + 2 * HOUR
    assert traffic.look(definition).metrics[0].excluded == {"champion": {"no_feedback": 1}}
    told = [feedback(record, 1.0, after_s=3599), feedback(record, 9.0, after_s=3601)]
    traffic.tables.feedback.append(feedback_frame(told).collect())
    assert traffic.look(definition).metrics[0].cells[0, "champion"].total == 1.0


def test_an_evaluator_of_prompts_that_begins_to_score_answers_is_read_on_them(traffic: Traffic) -> None:
    definition = experiment(primary_metric="score:length", secondary_metrics=())
    rows = [payload("ann", "champion"), payload("bob", "champion")]
    traffic.tables.payload.append(payload_frame(rows).collect())
    traffic.look(definition)
    traffic.tables.scores.append(
        score_frame([score(row, 3.0, "length", target="request") for row in rows]).collect()
    )
    assert traffic.look(definition).metrics[0].cells[0, "champion"].total == 6.0
    traffic.tables.scores.append(score_frame([score(rows[0], 1.0, "length")]).collect())
    assert traffic.look(definition).metrics[0].excluded == {"champion": {"not_scored_yet": 1}}


def test_forgotten_records_no_longer_count(traffic: Traffic, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="experiments.measurement")
    definition = everything_measured()
    traffic.hour()
    traffic.scores()
    before = traffic.look(definition)
    ids = [row["databricks_request_id"] for row in traffic.written if row["unit"] == "user-7"] or [
        traffic.written[0]["databricks_request_id"]
    ]
    delete_keys(traffic.tables.payload, "databricks_request_id", ids)
    after = traffic.look(definition)
    assert sum(after.records.values()) < sum(before.records.values())
    assert "rows were deleted" in _reasons(caplog)[-1]


def test_days_that_leave_from_before_the_experiment_are_no_reason_to_begin_anew(
    traffic: Traffic, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="experiments.measurement")
    definition = experiment()
    old = payload("old", "champion", request_time=START - timedelta(days=9))
    traffic.tables.payload.append(payload_frame([old]).collect())
    traffic.hour()
    since = START - timedelta(days=3)
    traffic.look(definition, since=since)
    assert delete_before(traffic.tables.payload, since.date()) == 1
    traffic.hour()
    found = traffic.look(definition, since=since)
    assert found.records
    assert _reasons(caplog) == []


def test_records_outside_the_experiments_time_do_not_count(traffic: Traffic) -> None:
    definition = experiment()
    moments = [START - HOUR, START, START + HOUR, START + 2 * HOUR]
    rows = [payload(f"user-{n}", "champion", request_time=moment) for n, moment in enumerate(moments)]
    bounds = {"since": START, "until": START + 2 * HOUR}
    traffic.tables.payload.append(payload_frame(rows[:2]).collect())
    assert traffic.look(definition, **bounds).records == {"champion": 1}
    traffic.tables.payload.append(payload_frame(rows[2:]).collect())
    assert traffic.look(definition, **bounds).records == {"champion": 2}
    assert traffic.look(definition).records == {"champion": 4}


def test_a_history_that_is_gone_is_read_anew(traffic: Traffic, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="experiments.measurement")
    definition = experiment()
    for _ in range(2):
        traffic.hour()
    traffic.look(definition)
    traffic.hour()
    traffic.hour()
    delta = DeltaTable(traffic.tables.payload.uri)
    delta.create_checkpoint()
    for version in range(4):
        (Path(traffic.tables.payload.uri) / "_delta_log" / f"{version:020d}.json").unlink()
    traffic.look(definition)
    assert "no longer reaches back" in _reasons(caplog)[-1]


def test_an_earlier_look_is_repeated_beside_the_state(traffic: Traffic) -> None:
    definition = everything_measured()
    traffic.hour()
    traffic.scores()
    then = {"versions": traffic.versions, "as_of": traffic.now}
    first = traffic.look(definition)
    traffic.hour()
    traffic.feedback()
    traffic.look(definition)
    kept = _manifest(traffic)
    assert_same(traffic.look(definition, **then), first)
    assert _manifest(traffic) == kept


def test_a_damaged_state_is_made_anew(traffic: Traffic, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="experiments.measurement")
    definition = experiment()
    traffic.hour()
    traffic.look(definition)
    (units,) = traffic.folder.glob("*/*.arrow")
    units.write_bytes(units.read_bytes()[:-100])
    traffic.hour()
    traffic.look(definition)
    assert "is not whole" in _reasons(caplog)[-1]
    (manifest,) = traffic.folder.glob("*/manifest.json")
    for text in ("{", "[]", json.dumps({**json.loads(manifest.read_text()), "format": 0})):
        manifest.write_text(text)
        traffic.hour(5)
        traffic.look(definition)
        assert "cannot be read" in _reasons(caplog)[-1]


def test_a_crash_between_two_files_leaves_the_state_before(traffic: Traffic) -> None:
    definition = experiment()
    traffic.hour()
    traffic.look(definition)
    kept = _manifest(traffic)
    traffic.hour(5)
    traffic.look(definition)
    (manifest,) = traffic.folder.glob("*/manifest.json")
    # As if it had not been replaced yet, but the units had been written.
    manifest.write_text(json.dumps(kept))
    traffic.hour(5)
    traffic.look(definition)
    files = {path.name for path in traffic.folder.glob("*/*.arrow")}
    assert files == {name for name, *_ in _manifest(traffic)["segments"]}


def test_another_definition_is_measured_anew(traffic: Traffic) -> None:
    traffic.hour()
    traffic.look(experiment())
    found = traffic.look(experiment(secondary_metrics=("output_tokens",)))
    assert [measured.metric.name for measured in found.metrics] == ["latency_ms", "output_tokens"]


def test_a_pilot_stays_where_it_was_placed(traffic: Traffic) -> None:
    definition = experiment(primary_metric="latency_ms:p90", secondary_metrics=())
    traffic.hour(240)
    first = traffic.look(definition)
    assert first.pilots
    slower = [payload(f"slow-{n}", "champion", execution_duration_ms=90_000) for n in range(200)]
    traffic.tables.payload.append(payload_frame(slower).collect())
    assert traffic.look(definition).pilots == first.pilots


def test_without_tables_nothing_is_measured_and_they_may_come_later(traffic: Traffic) -> None:
    definition = everything_measured()
    assert traffic.look(definition).records == {}
    traffic.hour()
    assert traffic.look(definition).records
    traffic.scores()
    traffic.feedback()
    assert traffic.look(definition).metrics[-2].cells


def test_the_units_history_is_read_once_and_followed(traffic: Traffic) -> None:
    definition = everything_measured(cuped_days=5.0)
    traffic.hour(200, experiment="earlier")
    traffic.scores(300)
    traffic.feedback()
    since = traffic.now
    times = {"since": since - HOUR, "started_at": since}
    for hour in range(4):
        traffic.now = since + (hour + 1) * 12 * HOUR
        traffic.hour()
        traffic.scores()
        found = traffic.look(definition, **times)
    latency = found.metrics[0].covariates
    assert latency[0, "champion"].known.units > 10
    assert latency[0, "champion"].new.units > 0
    assert latency[0, "champion"].outcome.units == found.metrics[0].cells[0, "champion"].units
    assert found.metrics[3].covariates == {}, "quantiles have none"
    read = found.history
    late = payload(
        "user-3", "champion", request_time=since - HOUR, experiment=None, execution_duration_ms=99_999
    )
    traffic.tables.payload.append(payload_frame([late]).collect())
    again = traffic.look(definition, **times)
    assert (again.history, again.metrics[0].covariates) == (read, latency)
    shorter = traffic.look(definition, **times, until=traffic.now - 20 * HOUR)
    assert shorter.history == read, "an end makes no new history"


def test_shadows_are_pairs_and_nobody_was_exposed(traffic: Traffic) -> None:
    definition = experiment(
        kind="shadow",
        control=Variant("champion", "smol"),
        treatments=(Variant("challenger", "smol-hot"),),
        secondary_metrics=("score:toxicity",),
    )
    original = payload("ann", None, experiment=None)
    mirror = payload(
        "ann",
        None,
        experiment=None,
        is_shadow=True,
        shadow_of=original["databricks_request_id"],
        served_entity="smol-hot",
        execution_duration_ms=300,
    )
    traffic.tables.payload.append(payload_frame([original, mirror]).collect())
    found = traffic.look(definition)
    assert (found.records, found.exposures) == ({"champion": 1, "challenger": 1}, {})
    (pairs,) = found.pairs
    assert pairs.metrics[0].differences.total == pytest.approx(np.log(3))


def test_rows_that_were_added_are_taken_away_once_each() -> None:
    rows = pl.DataFrame(
        {"id": [1, 1, 1, 2, 3], "value": [float("nan"), float("nan"), 5.0, None, 7.0], "found": [True] * 5}
    )
    added = pl.DataFrame({"id": [1, 2], "value": [float("nan"), None], "found": [True, True]})
    left = without(rows, added).sort("id", "value")
    assert left["id"].to_list() == [1, 1, 3]
    assert without(left, left).is_empty()


def _manifest(traffic: Traffic) -> dict[str, Any]:
    (path,) = traffic.folder.glob("*/manifest.json")
    return dict(json.loads(path.read_text()))
