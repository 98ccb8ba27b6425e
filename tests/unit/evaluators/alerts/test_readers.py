"""evaluators.alerts.readers and drift_reader on real Delta tables."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from collector.catalog import DRIFT_SCHEMA, FEEDBACK_SCHEMA, EndpointTables
from evaluators.alerts.readers import reader_for
from evaluators.alerts.rule import (
    Aggregate,
    DriftMeasure,
    FeedbackMeasure,
    LagMeasure,
    ScoreMeasure,
    TrafficMeasure,
)
from evaluators.alerts.samples import Sample
from evaluators.drift.windows import Window
from tests.unit.evaluators.alerts.rules import START, rule
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows, score_rows

WINDOW = Window(START - timedelta(minutes=10), START)
SECOND = timedelta(seconds=1)


@pytest.fixture
def tables(tmp_path: Path) -> EndpointTables:
    return endpoint_tables(tmp_path)


def read(tables: EndpointTables, measure: Any, **changes: Any) -> dict[str, Sample]:
    return dict(reader_for(rule(measure=measure, **changes), tables).read(WINDOW))


def examples(tables: EndpointTables, measure: Any, slice_: str = "", *, highest: bool = True) -> list[str]:
    return reader_for(rule(measure=measure), tables).examples(WINDOW, slice_, highest=highest)


def records(tables: EndpointTables, count: int = 10, **columns: Any) -> pl.DataFrame:
    rows = payload_rows(count, WINDOW.start, every=SECOND, **columns)
    tables.payload.append(rows)
    return rows


def test_scores_are_those_of_the_window_the_evaluator_and_the_target(tables: EndpointTables) -> None:
    rows = records(tables)
    tables.scores.append(score_rows(rows, "toxicity", [0.1, 0.9, 0.2, 0.8, None, 0.3, 0.7, 0.1, 0.1, 0.1]))
    tables.scores.append(score_rows(rows, "toxicity", [1.0] * 10, target="request"))
    tables.scores.append(score_rows(rows, "perplexity", [50.0] * 10))
    before = payload_rows(5, WINDOW.start - timedelta(minutes=1), every=SECOND)
    at_the_end = payload_rows(1, WINDOW.end)
    for other in (before, at_the_end):
        tables.scores.append(score_rows(other, "toxicity", [1.0] * other.height))

    def one(aggregate: Aggregate) -> Sample:
        return read(tables, ScoreMeasure("toxicity", aggregate=aggregate))[""]

    assert (one(Aggregate("share_above", 0.5)).value, one(Aggregate("share_above", 0.5)).n) == (3 / 9, 9)
    assert one(Aggregate("share_below", 0.15)).value == 4 / 9
    assert one(Aggregate("mean")).value == pytest.approx(3.3 / 9)
    assert one(Aggregate("median")).value == 0.2
    assert one(Aggregate("p95")).value == pytest.approx(0.86)
    assert (one(Aggregate("unscored_share")).value, one(Aggregate("unscored_share")).n) == (0.1, 10)
    assert read(tables, ScoreMeasure("toxicity", "request"))[""].value == 1.0
    assert read(tables, ScoreMeasure("unheard-of")) == {}


def test_scores_of_mirrored_calls_are_nobodys(tables: EndpointTables) -> None:
    tables.scores.append(score_rows(records(tables, 4), "toxicity", [0.1] * 4))
    mirrored = records(tables, 4, is_shadow=True, served_entity="new")
    tables.scores.append(score_rows(mirrored, "toxicity", [0.9] * 4))
    measure = ScoreMeasure("toxicity")
    assert read(tables, measure)[""].value == pytest.approx(0.1)
    assert set(read(tables, measure, sliced=True)) == {"small"}
    assert not {*examples(tables, measure)} & {*mirrored["databricks_request_id"]}


def test_what_is_not_a_number_is_unscored_and_not_a_score(tables: EndpointTables) -> None:
    rows = records(tables, 4)
    tables.scores.append(score_rows(rows, "toxicity", [0.4, float("nan"), float("inf"), 0.6]))
    found = read(tables, ScoreMeasure("toxicity"))[""]
    assert (found.value, found.n) == (pytest.approx(0.5), 2)
    share = read(tables, ScoreMeasure("toxicity", aggregate=Aggregate("unscored_share")))[""]
    assert share.value == 0.5


def test_a_record_that_was_scored_again_counts_once(tables: EndpointTables) -> None:
    rows = records(tables, 4)
    for number, score in enumerate((0.9, 0.1)):
        again = score_rows(rows, "toxicity", [score] * 4)
        scored_at = pl.lit(START + number * SECOND).cast(pl.Datetime("us", "UTC")).alias("scored_at")
        tables.scores.append(again.with_columns(scored_at))
    found = read(tables, ScoreMeasure("toxicity"))[""]
    assert (found.value, found.n) == (pytest.approx(0.1), 4)


def test_labels_have_shares(tables: EndpointTables) -> None:
    rows = records(tables, 4)
    labels = pl.Series("label", ["toxic", "fine", "toxic", "fine"])
    tables.scores.append(score_rows(rows, "toxicity", [0.9, 0.1, 0.8, 0.2]).with_columns(labels))
    measure = ScoreMeasure("toxicity", aggregate=Aggregate("share_label", label="toxic"))
    assert read(tables, measure)[""].value == 0.5
    assert set(examples(tables, measure)) == {rows[ID][0], rows[ID][2]}


ID = "databricks_request_id"


def test_slices_are_variants_and_else_entities(tables: EndpointTables) -> None:
    rows = records(tables, 6, variant=["a", "a", "b", "b", "b", None])
    tables.scores.append(score_rows(rows, "toxicity", [0.1, 0.1, 0.9, 0.9, 0.9, 0.5]))
    measure = ScoreMeasure("toxicity")
    found = read(tables, measure, sliced=True)
    assert {name: sample.n for name, sample in found.items()} == {"a": 2, "b": 3, "small": 1}
    assert found["b"].value == pytest.approx(0.9)
    only = read(tables, measure, variant="b")
    assert list(only) == ["b"]
    assert read(tables, measure)[""].n == 6


def test_examples_are_the_clearest_and_few(tables: EndpointTables) -> None:
    rows = records(tables, 8)
    scores = [0.1, 0.9, 0.2, 0.8, None, 0.3, 0.7, 0.4]
    tables.scores.append(score_rows(rows, "toxicity", scores))
    names = rows[ID].to_list()
    above = ScoreMeasure("toxicity", aggregate=Aggregate("share_above", 0.5))
    assert examples(tables, above) == [names[1], names[3], names[6], names[7], names[5]]
    assert examples(tables, above, highest=False)[0] == names[0]
    below = ScoreMeasure("toxicity", aggregate=Aggregate("share_below", 0.5))
    assert examples(tables, below)[0] == names[0]
    unscored = ScoreMeasure("toxicity", aggregate=Aggregate("unscored_share"))
    assert examples(tables, unscored) == [names[4]]


def test_traffic(tables: EndpointTables) -> None:
    records(
        tables,
        10,
        status_code=[200] * 6 + [500, 429, 200, 200],
        error_type=[None] * 8 + ["upstream_error", "client_disconnected"],
        execution_duration_ms=[100, 200, 300, 400, 500, 600, 1, 1, 1, 700],
        time_to_first_token_ms=[10.0] * 10,
        input_tokens=[5] * 9 + [None],
        output_tokens=[7] * 10,
    )
    records(tables, 3, is_shadow=True, status_code=500)

    def one(metric: Any) -> Sample:
        return read(tables, TrafficMeasure(metric))[""]

    assert one("requests").value == 10
    assert (one("error_rate").value, one("error_rate").n) == (0.3, 10)
    assert (one("latency_mean").value, one("latency_mean").n) == (400.0, 7)
    assert one("latency_median").value == 400.0
    assert one("latency_p95").value == pytest.approx(670.0)
    assert (one("time_to_first_token_p95").value, one("time_to_first_token_median").n) == (10.0, 7)
    assert one("input_tokens").value == 45
    assert one("output_tokens").value == 70
    assert one("tokens").value == 115


def test_examples_of_traffic(tables: EndpointTables) -> None:
    rows = records(
        tables, 4, status_code=[200, 500, 200, 503], execution_duration_ms=[100, 9_000, 300, 9_000]
    )
    names = rows[ID].to_list()
    assert set(examples(tables, TrafficMeasure("error_rate"))) == {names[1], names[3]}
    assert examples(tables, TrafficMeasure("latency_p95"))[:2] == [names[2], names[0]]
    assert examples(tables, TrafficMeasure("requests")) == []


def test_no_calls_are_a_number_only_where_there_is_a_table(tables: EndpointTables) -> None:
    assert read(tables, TrafficMeasure("requests")) == {}
    tables.payload.append(payload_rows(3, WINDOW.start - timedelta(days=1)))
    assert read(tables, TrafficMeasure("requests"))[""].value == 0
    assert read(tables, TrafficMeasure("tokens"))[""].value == 0
    assert read(tables, TrafficMeasure("requests"), variant="b")["b"].value == 0
    assert read(tables, TrafficMeasure("requests"), sliced=True) == {}
    assert read(tables, TrafficMeasure("error_rate")) == {}


def feedback(rows: pl.DataFrame, values: list[Any], **columns: Any) -> pl.DataFrame:
    schema = pl.DataFrame(FEEDBACK_SCHEMA.empty_table()).schema
    found = rows.select(ID, "request_date", "request_time").with_columns(
        pl.lit("thumbs").alias("name"),
        pl.Series("value", values, dtype=pl.Float64),
        pl.lit(WINDOW.start + timedelta(minutes=1)).cast(schema["feedback_time"]).alias("feedback_time"),
    )
    given = [
        pl.lit(value, schema[name]).alias(name) if not isinstance(value, list) else pl.Series(name, value)
        for name, value in columns.items()
    ]
    return found.with_columns(given)


def test_feedback_counts_when_it_arrives(tables: EndpointTables) -> None:
    old = payload_rows(4, WINDOW.start - timedelta(hours=3), every=SECOND, variant=["a", "b", "b", "b"])
    tables.payload.append(old)
    tables.feedback.append(feedback(old, [1.0, 0.0, 0.0, 1.0], source_id="ann"))
    late = feedback(old, [0.0] * 4, source_id="bob")
    tables.feedback.append(late.with_columns(pl.lit(WINDOW.end).alias("feedback_time")))
    down = FeedbackMeasure("thumbs", Aggregate("share_below", 0.5))
    assert (read(tables, down)[""].value, read(tables, down)[""].n) == (0.5, 4)
    by_variant = read(tables, down, sliced=True)
    assert {name: sample.value for name, sample in by_variant.items()} == {"a": 0.0, "b": 2 / 3}
    assert read(tables, FeedbackMeasure("stars")) == {}
    assert read(tables, FeedbackMeasure("stars"), sliced=True) == {}
    assert set(examples(tables, down)[:2]) == set(old[ID][1:3])


def test_who_changes_their_mind_counts_once(tables: EndpointTables) -> None:
    rows = records(tables, 2)
    tables.feedback.append(feedback(rows, [0.0, 0.0], source_id="ann"))
    changed = pl.lit(WINDOW.start + timedelta(minutes=2)).alias("feedback_time")
    tables.feedback.append(feedback(rows, [1.0, 1.0], source_id="ann").with_columns(changed))
    found = read(tables, FeedbackMeasure("thumbs"))[""]
    assert (found.value, found.n) == (1.0, 2)


def test_lag_is_the_age_of_the_oldest_that_waits(tables: EndpointTables) -> None:
    measure = LagMeasure("toxicity")
    assert read(tables, measure) == {}
    rows = records(tables, 300)
    assert read(tables, measure)[""].value == 600.0
    tables.scores.append(score_rows(rows.head(100), "toxicity", [0.1] * 100))
    assert read(tables, measure)[""].value == 500.0
    tables.scores.append(score_rows(rows.tail(200), "toxicity", [None] * 200))
    assert read(tables, measure)[""].value == 0.0


def drift_rows(end_ago: timedelta, columns: dict[str, dict[str, Any]], **common: Any) -> pl.DataFrame:
    schema = pl.DataFrame(DRIFT_SCHEMA.empty_table()).schema
    end = START - end_ago
    hour = timedelta(hours=1)
    rows = [
        {
            "window": {"start": end - hour, "end": end},
            "window_cmp": {"start": end - 2 * hour, "end": end - hour},
            "granularity": "1 hour",
            "drift_type": "CONSECUTIVE",
            "data_type": "double",
            "column_name": name,
            **common,
            **values,
        }
        for name, values in columns.items()
    ]
    return pl.DataFrame(rows, schema_overrides=schema).select(
        pl.col(name) if name in (set().union(*rows)) else pl.lit(None, kind).alias(name)
        for name, kind in schema.items()
    )


def ks(p: float, statistic: float = 0.3) -> dict[str, Any]:
    return {"ks_test": {"statistic": statistic, "pvalue": p}, "js_distance": statistic / 2}


def test_drift_is_of_the_newest_window(tables: EndpointTables) -> None:
    tables.drift.append(drift_rows(timedelta(hours=2), {"latency_ms": ks(1e-9), "tokens": ks(1e-9)}))
    tables.drift.append(
        drift_rows(
            timedelta(minutes=5),
            {":table": {"count_delta": 5}, "latency_ms": ks(1e-9, 0.4), "tokens": ks(0.5, 0.02)},
        )
    )

    def one(statistic: Any, column: str | None = None, hours: int = 3, **more: Any) -> dict[str, Sample]:
        measure = DriftMeasure(statistic, column, "1 hour", **more)
        window = Window(START - timedelta(hours=hours), START)
        return dict(reader_for(rule(measure=measure), tables).read(window))

    assert (one("drifted_columns")[""].value, one("drifted_columns")[""].n) == (1.0, 2)
    assert one("drifted_columns", "tokens")[""].value == 0.0
    assert one("effect")[""].value == 0.4
    assert one("js_distance")[""].value == 0.2
    assert one("js_distance", "tokens")[""].value == 0.01
    assert one("psi") == {}
    assert one("js_distance", "unheard-of") == {}
    assert one("js_distance", drift_type="BASELINE") == {}


def test_old_drift_is_no_data(tables: EndpointTables) -> None:
    tables.drift.append(drift_rows(timedelta(hours=4), {"latency_ms": ks(1e-9)}))
    reader = reader_for(rule(measure=DriftMeasure()), tables)
    assert reader.read(Window(START - timedelta(hours=3), START)) == {}
    assert reader.read(Window(START - timedelta(hours=5), START))[""].value == 1.0


def test_drift_of_variants(tables: EndpointTables) -> None:
    for name, p in (("a", 0.5), ("b", 1e-9)):
        tables.drift.append(
            drift_rows(timedelta(0), {"tokens": ks(p)}, slice_key="variant", slice_value=name)
        )
    hours = Window(START - timedelta(hours=3), START)
    each = reader_for(rule(measure=DriftMeasure(), sliced=True), tables).read(hours)
    assert {name: sample.value for name, sample in each.items()} == {"a": 0.0, "b": 1.0}
    assert list(reader_for(rule(measure=DriftMeasure(), variant="b"), tables).read(hours)) == ["b"]
    assert reader_for(rule(measure=DriftMeasure()), tables).read(hours) == {}
