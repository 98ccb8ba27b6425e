from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from dashboard import experiment_figures, quality_figures
from dashboard.console import Console
from dashboard.pages import quality
from dashboard.quality_queries import Drift, EvaluatorName
from dashboard.services import ConsoleServices
from evaluators.drift.verdict import drifted

PERPLEXITY = EvaluatorName("perplexity", "response")
VIEW = {"endpoint": "support-chat", "range": "7d"}


@pytest.fixture(scope="module")
def table(services: ConsoleServices) -> pl.DataFrame:
    frame = services.catalog.tables("support-chat").scores.scan().collect()
    return frame.filter(pl.col("evaluator") == "perplexity")


def test_scored_and_unscored_add_up(console: Console, table: pl.DataFrame) -> None:
    scores = console.quality.scores(console.view(VIEW), PERPLEXITY)
    assert scores.scored == table["score"].is_not_null().sum() > 0
    assert dict(scores.unscored.iter_rows()) == dict(
        table.filter(pl.col("score").is_null()).group_by("unscored_reason").len().iter_rows()
    )
    assert scores.bins["scored"].sum() == scores.scored
    medians = dict(scores.arms.select("arm", "median").iter_rows())
    assert medians["champion"] == pytest.approx(
        table.filter(pl.col("variant") == "champion")["score"].median()
    )


def test_evaluators_are_those_with_scores(console: Console) -> None:
    assert [one.key for one in console.quality.evaluators(console.view(VIEW))] == [
        "perplexity@response",
        "toxicity@response",
    ]


def test_wide_scores_get_a_logarithmic_axis(console: Console) -> None:
    view = console.view(VIEW)
    colours = {"champion": "#2566c8", "challenger": "#d9641a"}
    perplexity = console.quality.scores(view, PERPLEXITY)
    toxicity = console.quality.scores(view, EvaluatorName("toxicity", "response"))
    assert quality_figures.spans_decades(perplexity)
    figure = quality_figures.over_time(perplexity, colours, "dark", "UTC")
    assert figure.layout.yaxis.type == "log"
    shares = quality_figures.distribution(toxicity, colours, "light")
    assert [sum(line.y) for line in shares.data] == pytest.approx([1.0, 1.0])


def test_a_window_compared_with_an_empty_one_is_no_drift_and_no_error(console: Console) -> None:
    table = console.services.catalog.tables("support-chat").drift
    # What such a pair of windows leaves in the table: one row for the whole, none for a column.
    of_table = table.scan().head(1).with_columns(column_name=pl.lit(":table")).collect()
    assert of_table.height == 1
    rows = drifted(of_table)
    assert rows.is_empty()
    shown = str(quality._drift(Drift(rows, "1 minute", ("1 minute",)), "light", "UTC"))
    assert "No two windows of 1 minute have enough records yet" in shown


def test_too_few_records_are_not_called_stable(console: Console) -> None:
    drift = console.quality.drift(console.view(VIEW), None)
    none = replace(drift, rows=drift.rows.with_columns(drifted=pl.lit(None, pl.Boolean)))
    shown = str(quality._drift(none, "light", "UTC"))
    assert "have enough records yet" in shown
    assert "Stable" not in shown
    end = pl.col("window").struct.field("end")
    newest_untold = drift.rows.with_columns(
        drifted=pl.when(end == end.max()).then(None).otherwise(pl.lit(False))
    )
    shown = str(quality._drift(replace(drift, rows=newest_untold), "light", "UTC"))
    assert "The newest window has too few records to tell." in shown
    assert "Not enough records" in shown
    assert "Stable" not in shown


def test_newest_windows_drifted(console: Console) -> None:
    drift = console.quality.drift(console.view(VIEW), None)
    assert drift.granularity == "1 hour"
    last = drift.rows["window"].struct.field("end").max()
    newest = drift.rows.filter(pl.col("window").struct.field("end") == last)
    assert set(newest.filter("drifted")["column_name"]) == {
        "output_tokens",
        "response_length",
        "score:perplexity",
    }
    figure = quality_figures.drift_heat(drift, "light", "UTC")
    assert len(figure.data[0].y) == drift.rows["column_name"].n_unique()
    assert len(figure.data[1].x) == drift.rows["drifted"].sum()


def test_nothing_scored_is_no_error(empty_services: ConsoleServices) -> None:
    console = Console(empty_services)
    view = console.view(VIEW)
    assert console.quality.evaluators(view) == ()
    assert not console.quality.exists("support-chat")
    assert console.quality.drift(view, None).granularity is None
    scores = console.quality.scores(view, PERPLEXITY)
    assert quality_figures.over_time(scores, {}, "light", "UTC").to_json()
    assert quality_figures.distribution(scores, {}, "light").to_json()
    assert console.experiments.report(empty_services.experiments[0].experiment) is None


def test_report_is_looked_at_once_for_many_viewers(console: Console, services: ConsoleServices) -> None:
    experiment = services.experiments[0].experiment
    first = console.experiments.report(experiment)
    assert first is not None
    assert console.experiments.report(experiment) == first
    assert len(console.experiments.history(experiment)) == 1
    for metric in first["metrics"]:
        figure = experiment_figures.intervals(metric, "light")
        assert figure.layout.xaxis.ticktext[len(figure.layout.xaxis.ticktext) // 2] == "0"
        assert figure.to_json()


@pytest.mark.parametrize(
    ("scale", "unit", "value", "words"),
    [
        ("log", "ms", 0.0953102, "+10.0 %"),
        ("log", "score", 2.7, "×14.9"),
        ("plain", "rate", -0.0031, "−0.310 pt"),
        ("plain", "ms", 12.0, "+12.0 ms"),
        ("plain", "tokens", None, "–"),
    ],
)
def test_change_in_words(scale: str, unit: str, value: float | None, words: str) -> None:
    assert experiment_figures.change({"scale": scale, "unit": unit}, value) == words


def test_column_names_are_text_in_the_heat_map(services: ConsoleServices, console: Console) -> None:
    drift = console.quality.drift(console.view(VIEW), None)
    hostile = drift.rows.with_columns(pl.lit("<b>x</b>&").alias("column_name")).head(1)
    figure = quality_figures.drift_heat(type(drift)(hostile, "1 hour", ()), "light", "UTC")
    assert "&lt;b&gt;x&lt;/b&gt;&amp;" in figure.data[0].text[0][0]
