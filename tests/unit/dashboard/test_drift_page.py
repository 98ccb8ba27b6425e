from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import polars as pl
import pytest

from dashboard import drift_figures
from dashboard.console import Console
from dashboard.drift_queries import WHOLE, Drift, DriftChoice, reference_words
from dashboard.pages import quality_drift
from dashboard.services import ConsoleServices
from evaluators.drift.api import ReportBody
from evaluators.drift.pair_report import chosen_slice
from evaluators.drift.slices import Slice
from evaluators.drift.verdict import drifted

VIEW = {"endpoint": "support-chat", "range": "7d"}
MOVED = {"output_tokens", "response_length", "score:perplexity"}


@pytest.fixture
def drift(console: Console) -> Drift:
    return console.drift.drift(console.view(VIEW))


def page(drift: Drift) -> str:
    return str(quality_drift._drift(drift, "light", "UTC"))


def test_a_window_compared_with_an_empty_one_is_no_drift_and_no_error(console: Console) -> None:
    table = console.services.catalog.tables("support-chat").drift
    # What such a pair of windows leaves in the table: one row for the whole, none for a column.
    of_table = table.scan().head(1).with_columns(column_name=pl.lit(":table")).collect()
    assert of_table.height == 1
    rows = drifted(of_table)
    assert rows.is_empty()
    shown = page(Drift(rows, "1 minute", ("1 minute",), "previous", ("previous",)))
    assert "No two windows of 1 minute have enough records yet" in shown


def test_too_few_records_are_not_called_stable(drift: Drift) -> None:
    none = replace(drift, rows=drift.rows.with_columns(drifted=pl.lit(None, pl.Boolean)))
    shown = page(none)
    assert "have enough records yet" in shown
    assert "Stable" not in shown
    end = pl.col("window").struct.field("end")
    newest_untold = drift.rows.with_columns(
        drifted=pl.when(end == end.max()).then(None).otherwise(pl.lit(False))
    )
    shown = page(replace(drift, rows=newest_untold))
    assert "The newest window has too few records to tell." in shown
    assert "Insufficient data" in shown
    assert "Stable" not in shown


def test_newest_windows_drifted(drift: Drift) -> None:
    assert (drift.granularity, drift.reference, drift.slice) == ("1 hour", "previous", WHOLE)
    newest = drift.of_window(drift.windows()[0])
    assert set(newest.filter("drifted")["column_name"]) == MOVED
    assert set(newest["column_name"].head(3)) == MOVED
    figure = drift_figures.drift_heat(drift, "light", "UTC")
    assert len(figure.data[0].y) == drift.rows["column_name"].n_unique()
    assert len(figure.data[1].x) == drift.rows["drifted"].sum()


def test_what_there_is_to_choose(drift: Drift) -> None:
    assert drift.references == ("previous", "variant champion")
    assert drift.slices == (WHOLE, "variant=challenger", "variant=champion")


def test_a_slice_is_judged_alone(console: Console, drift: Drift) -> None:
    view = console.view(VIEW)
    champion = console.drift.drift(view, DriftChoice(slice="variant=champion"))
    assert champion.slice == "variant=champion"
    assert champion.rows.height == drift.rows.height
    newest = champion.of_window(champion.windows()[0])
    assert newest["drifted"].is_null().all()
    marks = drift_figures.drift_heat(champion, "dark", "UTC").data[-1]
    assert set(marks.text) == {"?"}
    assert len(marks.x) == champion.rows["drifted"].is_null().sum()
    table = str(quality_drift.window_table(newest))
    assert table.count("'Insufficient data'") == newest.height


def test_against_another_variant_there_is_no_slice_of_all(console: Console) -> None:
    chosen = console.drift.drift(console.view(VIEW), DriftChoice("1 hour", "variant champion", WHOLE))
    assert chosen.slices == ("variant=challenger",)
    assert chosen.slice == "variant=challenger"
    assert set(chosen.of_window(chosen.windows()[0]).filter("drifted")["column_name"]) == MOVED
    assert "compared with variant champion in the same window" in page(chosen)


def test_what_is_not_there_is_the_first_that_is(console: Console, drift: Drift) -> None:
    other = console.drift.drift(console.view(VIEW), DriftChoice("1 century", "nothing", "variant=nobody"))
    assert other.rows.equals(drift.rows)


def test_a_report_is_asked_for_as_the_api_takes_it(drift: Drift) -> None:
    rows = drift.of_window(drift.windows()[0])
    body, why = quality_drift.report_request("support-chat", rows, "variant=challenger")
    assert why == ""
    asked = ReportBody.model_validate(body)
    assert asked.window.end == drift.windows()[0]
    assert asked.against.end == asked.window.start
    assert chosen_slice(asked.slice) == Slice("variant", "challenger")
    whole, _ = quality_drift.report_request("support-chat", rows, WHOLE)
    assert whole is not None
    assert "slice" not in whole


@pytest.mark.parametrize("against", [None, "window"])
def test_no_report_without_two_windows(drift: Drift, against: str | None) -> None:
    rows = drift.of_window(drift.windows()[0])
    same = pl.col("window") if against else pl.lit(None, rows.schema["window_cmp"])
    body, why = quality_drift.report_request("support-chat", rows.with_columns(window_cmp=same), WHOLE)
    assert body is None
    assert "two windows" in why


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("previous", "the window before it"),
        ("trailing 7 days", "the 7 days before it"),
        ("baseline window", "one fixed window of the past"),
        ("table /data/train.parquet", "the data set /data/train.parquet"),
        ("variant b", "variant b in the same window"),
        ("something else", "something else"),
    ],
)
def test_a_reference_in_words(reference: str, words: str) -> None:
    assert reference_words(reference) == words


def test_rows_of_before_there_was_a_name_have_a_reference(
    console: Console, empty_services: ConsoleServices
) -> None:
    rows = console.services.catalog.tables("support-chat").drift.scan().collect().head(4)
    old = rows.with_columns(reference=pl.lit(None, pl.String), drift_type=pl.lit("BASELINE"))
    empty_services.catalog.tables("summaries").drift.append(old)
    found = Console(empty_services)
    assert found.drift.drift(found.view({**VIEW, "endpoint": "summaries"})).references == ("baseline window",)


def test_column_names_are_text_in_the_heat_map(drift: Drift) -> None:
    hostile = drift.rows.with_columns(pl.lit("<b>x</b>&").alias("column_name")).head(1)
    figure = drift_figures.drift_heat(replace(drift, rows=hostile), "light", "UTC")
    assert "&lt;b&gt;x&lt;/b&gt;&amp;" in figure.data[0].text[0][0]
    assert figure.layout.yaxis.ticktext == ("&lt;b&gt;x&lt;/b&gt;&amp;",)


def test_only_the_columns_that_moved_most_are_drawn(drift: Drift) -> None:
    first = drift.rows.head(1)
    wide = pl.concat([first.with_columns(pl.lit(f"feature_{n:03}").alias("column_name")) for n in range(90)])
    many = replace(drift, rows=wide)
    assert len(drift_figures.drift_heat(many, "light", "UTC").data[0].y) == drift_figures.MOST_COLUMNS
    assert drift_figures.heat_height(many) < 1200
    assert "Shown are the 40 of 90 columns" in page(many)


def test_a_windows_label_says_how_it_ended(drift: Drift) -> None:
    end: datetime = drift.windows()[0]
    assert quality_drift._window_label(drift, end, "UTC") == "14 Mar, 14:00 · 3 drifted"
