from __future__ import annotations

from dataclasses import replace

import polars as pl
import pytest

from dashboard import experiment_figures, quality_figures, truth_figures
from dashboard.console import Console
from dashboard.evaluator_notes import note_of
from dashboard.pages import quality_truth
from dashboard.quality_queries import EvaluatorName
from dashboard.services import ConsoleServices
from evaluators.registry import known_evaluators

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
        "ground_truth@response",
        "json_schema@response",
        "language@response",
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


def test_labels_add_up_and_0_or_1_is_a_share(console: Console) -> None:
    view = console.view(VIEW)
    colours = {"champion": "#2566c8", "challenger": "#d9641a"}
    valid = console.quality.scores(view, EvaluatorName("json_schema", "response"))
    assert valid.share_of == "valid"
    assert valid.labels["count"].sum() == valid.scored
    assert valid.arms["hits"].sum() == valid.labels.filter(label="valid")["count"].sum()
    line = quality_figures.over_time(valid, colours, "light", "UTC")
    assert line.layout.yaxis.tickformat == ".3~p"
    assert all(0 <= value <= 1 for trace in line.data for value in trace.y)
    bars = quality_figures.label_shares(valid, colours, "dark")
    assert [sum(bar.x) for bar in bars.data] == pytest.approx([1.0, 1.0])
    assert quality_figures.shown_labels(valid)[0] == "valid"
    assert console.quality.scores(view, PERPLEXITY).share_of is None


def test_a_share_is_shown_of_enough_scores_at_a_time(console: Console) -> None:
    scores = console.quality.scores(console.view(VIEW), EvaluatorName("ground_truth", "response"))
    few, half = quality_figures._widened(scores.bins.filter(arm="champion"), scores.window)
    mine = scores.bins.filter(arm="champion")
    assert few["scored"].sum() == mine["scored"].sum()
    assert few.height < mine.height
    assert half > scores.window.bin / 2
    assert ((few["bin"] >= scores.window.since) & (few["bin"] < scores.window.until)).all()


def test_many_labels_are_summed_up(console: Console) -> None:
    scores = console.quality.scores(console.view(VIEW), EvaluatorName("language", "response"))
    many = pl.DataFrame(
        {
            "arm": ["champion"] * 12,
            "label": [f"<b>{n:02}" for n in range(12)],
            "count": list(range(12, 0, -1)),
        }
    )
    figure = quality_figures.label_shares(replace(scores, labels=many), {"champion": "#2566c8"}, "light")
    assert len(figure.data[0].x) == 8
    assert sum(figure.data[0].x) == pytest.approx(1.0)
    assert figure.layout.yaxis.ticktext[0] == "&lt;b&gt;00"
    assert figure.layout.yaxis.ticktext[-1] == "all others"


@pytest.mark.parametrize(
    ("evaluator", "target", "share"),
    [
        ("refusal", "response", "refusal"),
        ("personal_data", "request", "found"),
        ("made.up", "response", None),
    ],
)
def test_what_is_flagged(evaluator: str, target: str, share: str | None) -> None:
    assert note_of(evaluator, target).flagged == share


def test_every_built_in_evaluator_says_what_it_cannot_see() -> None:
    for name in (*known_evaluators(), "ground_truth", "ground_truth.topic", "judge"):
        assert note_of(name).caveat, name


def test_model_quality_is_that_of_the_truths(console: Console, services: ConsoleServices) -> None:
    frame = services.catalog.tables("support-chat").scores.scan().collect().filter(evaluator="ground_truth")
    quality = console.truths.quality(console.view(VIEW), "ground_truth")
    assert quality is not None
    assert [arm.arm for arm in quality.arms] == ["All", "challenger", "champion"]
    for arm in quality.arms:
        mine = frame if arm.arm == "All" else frame.filter(variant=arm.arm)
        assert arm.classes is not None
        assert arm.classes.count == mine.height
        assert arm.classes.accuracy == pytest.approx(mine["score"].mean())
    classes = quality.arms[0].classes
    assert classes is not None
    figure = truth_figures.confusion(classes, "dark")
    assert sum(int(one.text) for one in figure.layout.annotations) == frame.height
    page = str(quality_truth.truth_card(quality, "light", "UTC"))
    assert f"{frame.height} answers with a known truth" in page
    assert console.truths.quality(console.view({**VIEW, "endpoint": "summaries"}), "ground_truth") is None


def test_nothing_scored_is_no_error(empty_services: ConsoleServices) -> None:
    console = Console(empty_services)
    view = console.view(VIEW)
    assert console.quality.evaluators(view) == ()
    assert not console.quality.exists("support-chat")
    assert console.drift.drift(view).granularity is None
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
