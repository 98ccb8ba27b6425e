from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest

from dashboard import agreement_figures
from dashboard.agreement_queries import EvaluatorView
from dashboard.console import Console
from dashboard.pages import relabel_agreement
from dashboard.services import ConsoleServices
from dashboard.view import View
from evaluators.agreement.report import agreement
from relabel.agreement.report import people_agreement
from servelens.database import Database
from servelens.errors import Missing
from tests.new_database import new_database
from tests.unit.relabel.agreement.labeled_cases import RICH, Kept, labels, make_gold, store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = new_database(tmp_path / "servelens.db")
    yield opened
    opened.dispose()


def rated(count: int, people: str = "abc") -> dict[str, list[dict[str, Any]]]:
    rng = np.random.default_rng(1)
    truth = rng.random(count) < 0.4
    return {
        f"<{name}>": [
            {
                "rating": "bad" if (yes if rng.random() < 0.85 else rng.random() < 0.4) else "good",
                "duration_s": 12.0,
            }
            for yes in truth
        ]
        for name in people
    }


def evaluated(*, drawn: int = 0, labeled: int = 400, unfair: str | None = None) -> dict[str, Any]:
    """What the measure of an evaluator gives as plain data."""
    rng = np.random.default_rng(2)
    total = labeled + drawn
    positive = rng.random(total) < 0.4
    scores = np.clip(rng.normal(0.35 + 0.3 * positive, 0.15), 0, 1)
    ids = [f"r{number}" for number in range(total)]
    frame = pl.DataFrame({"databricks_request_id": ids, "positive": positive, "chosen": scores > 0.5})
    sample = frame.tail(drawn).select("databricks_request_id", "positive", share=pl.lit(0.1))
    found = agreement(
        frame.head(labeled),
        pl.DataFrame({"databricks_request_id": ids, "score": scores}),
        threshold=0.5,
        sample=sample if drawn else None,
        unfair=unfair,
    )
    return {"positive_means": "rated bad", "chosen_by_evaluator": 10, **found.to_dict()}


def test_people_pairs_and_annotators(database: Database) -> None:
    cases = store(database, 60)
    labels(database, cases, rated(60))
    gold = store(database, 2, first=100)
    labels(database, gold, {"<a>": [{"rating": "good"}, {"rating": "bad"}]})
    for case in gold:
        make_gold(database, case, {"rating": "good"})
    report = people_agreement(database, "chat").to_dict()
    page = str(relabel_agreement.people_card(report, "dark"))
    for words in ("Same answer", "Krippendorff's α", "180 labels of 60 cases; 60 have two or more"):
        assert words in page, words
    pairs = str(relabel_agreement.pairs_card(report, None))
    assert "<a>, <b>" in pairs
    assert "Cohen's κ" in pairs
    people = str(relabel_agreement.annotators_card(report))
    assert "50.0 % of 2" in people
    assert "12.0 s" in people
    assert "no gold case is labeled" not in people


def test_too_few_cases_say_how_many_are_needed(database: Database) -> None:
    cases = store(database, 12)
    labels(database, cases, rated(12, "ab"))
    report = people_agreement(database, "chat").to_dict()
    page = str(relabel_agreement.people_card(report, None))
    assert "12 cases have two labels; 20 are needed" in page
    assert "Graph" not in page
    assert "both labeled 12 cases; 20 are needed" in str(relabel_agreement.pairs_card(report, None))
    assert "make a few cases gold" in str(relabel_agreement.annotators_card(report))


def test_one_label_a_case_says_how_to_get_two(database: Database) -> None:
    cases = store(database, 5)
    labels(database, cases, rated(5, "a"))
    report = people_agreement(database, "chat").to_dict()
    assert "Set annotators: 2" in str(relabel_agreement.people_card(report, None))
    assert relabel_agreement.pairs_card(report, None) is None


def test_an_evaluator_with_a_sample() -> None:
    found = evaluated(drawn=300)
    page = str(relabel_agreement.evaluator_card(EvaluatorView("toxicity", "response", found), "dark"))
    for words in (
        "toxicity of the response, against people",
        "by the cases it chose",
        "by the control sample",
        "300 of 300 labeled and scored, 0 wait",
        "Proposed threshold: above",
        "on the control sample",
        "How often a score is right",
        "Precision and recall by threshold",
        "suspicious is above 0.500",
    ):
        assert words in page, words


def test_without_a_sample_recall_is_not_known() -> None:
    found = evaluated(unfair="403 flagged records made no case")
    page = str(relabel_agreement.evaluator_card(EvaluatorView("toxicity", "response", found), None))
    assert "add a random rule" in page
    assert "not known" in page
    assert "no fair part of what it flags: 403 flagged records" in page
    assert "expect other precision and recall on the traffic" in page


def test_an_evaluator_with_few_labels_shows_no_numbers() -> None:
    found = evaluated(labeled=7)
    page = str(relabel_agreement.evaluator_card(EvaluatorView("toxicity", "response", found), None))
    assert "7 records have a label and a score, and 20 are needed." in page
    assert "Graph" not in page
    assert "Proposed threshold" not in page
    problem = EvaluatorView("toxicity", "response", None, "the label schema has no field 'rating'")
    assert "The label schema has no field 'rating'." in str(relabel_agreement.evaluator_card(problem, None))


class Measured:
    """Evaluators whose measures are given."""

    def choices(self, endpoint: str) -> list[tuple[str, Any]]:
        return [("toxicity", "response"), ("judge", "response")]

    def __call__(self, endpoint: str, evaluator: str, **options: Any) -> Mapping[str, Any]:
        if evaluator == "judge":
            raise Missing("nobody has labeled a case yet")
        return evaluated(drawn=200)


def test_the_section_has_all_of_it(empty_services: ConsoleServices) -> None:
    console = Console(replace(empty_services, evaluator_agreement=Measured()))
    view = console.view({"endpoint": empty_services.endpoints[0].name})
    assert "Nobody has labeled a case of this endpoint" in str(relabel_agreement.section(console, view))
    cases = store(empty_services.database, 30, endpoint=view.endpoint, first=500)
    labels(empty_services.database, cases, rated(30))
    later = Console(replace(empty_services, evaluator_agreement=Measured()))
    page = str(relabel_agreement.section(later, view, "dark"))
    for words in ("Agreement of people", "Pairs of annotators", "Annotators", "toxicity of the response"):
        assert words in page, words
    assert "Nobody has labeled a case yet." in page
    without = Console(empty_services)
    assert without.agreement.evaluators(view.endpoint) == []
    assert isinstance(view, View)


def test_figures_draw_what_there_is(database: Database) -> None:
    cases = store(database, 40)
    labels(database, cases, rated(40))
    report = people_agreement(database, "chat").to_dict()
    figure = agreement_figures.intervals(report["fields"], "light")
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [point.x[0] for point in points] == [
        report["fields"][0]["measures"][name]["value"] for name in ("fleiss", "alpha")
    ]
    assert agreement_figures.intervals_height(report["fields"]) > agreement_figures.intervals_height([])
    matrix = agreement_figures.pair_matrix(report["pairs"], "dark")
    (heat,) = (trace for trace in matrix.data if isinstance(trace, go.Heatmap))
    assert np.array(heat.z, dtype=float).shape == (3, 3)
    assert heat.z[0][1] == heat.z[1][0] == report["pairs"][0]["kappa"]["value"]
    assert heat.z[0][0] is None
    # Names are text, never tags of a plotly text.
    assert "&lt;a&gt;" in matrix.to_json().replace("\\u0026", "&")
    assert '"<a>"' not in matrix.to_json()


def test_curves_are_drawn_as_they_are() -> None:
    found = evaluated(drawn=300)
    reliability = agreement_figures.reliability(found["reliability"], "light")
    assert list(reliability.data[1].x) == [each["mean_score"] for each in found["reliability"]]
    assert all(value >= 0 for side in ("array", "arrayminus") for value in reliability.data[1].error_y[side])
    curve = agreement_figures.precision_recall(found, "dark")
    assert [trace.name for trace in curve.data] == ["precision", "recall"]
    assert list(curve.data[1].y) == [point["recall"] for point in found["curve"]]
    lines = sorted(shape.x0 for shape in curve.layout.shapes)
    assert lines == sorted([0.5, found["suggestion"]["threshold"]])


def test_many_people_are_cut(database: Database) -> None:
    cases = store(database, 2)
    labels(database, cases, rated(2, "abcdefghijklmnop"))
    report = people_agreement(database, "chat", Kept(RICH)).to_dict()
    assert len(agreement_figures.shown_people(report["pairs"])) == agreement_figures.MOST_PEOPLE
    assert "The 12 pairs with most cases of 120." in str(relabel_agreement.pairs_card(report, None))
