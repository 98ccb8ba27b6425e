"""Drift: how far each column is from its reference, window by window, and one window in numbers with its report.

The viewer chooses granularity, reference and slice where there are several. A report is asked for by the browser through
the HTTP API, so that it takes the right that the API takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import dash_mantine_components as dmc
import polars as pl
from dash import Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import drift_figures, formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.drift_queries import WHOLE, Drift, DriftChoice, reference_words, slice_words
from dashboard.elements import GRAPH_CONFIG, Element, badge, card, empty, icon, problem_slot, table
from dashboard.pages import quality_reports

_CHOICES = ("granularity", "reference", "slice")
_LABELS = {"granularity": "Window length", "reference": "Compared with", "slice": "Slice", "window": "Window"}
_TONES = {None: "neutral", True: "warning", False: "good"}


def layout() -> Element:
    """The cards before their numbers."""
    return html.Div(
        [
            problem_slot("quality-drift-problem"),
            card(
                "Drift",
                [
                    html.Div([_choice(name) for name in _CHOICES], className="choices"),
                    html.Div(id="quality-drift-body"),
                ],
                note=html.Span(id="quality-drift-note"),
                actions=[html.Div(id="quality-drift-verdict")],
            ),
            html.Div(
                [
                    html.Div(
                        card(
                            "One window",
                            [
                                html.Div(
                                    [
                                        _choice("window"),
                                        html.Button(
                                            [icon("report"), "Make an Evidently report"],
                                            id="quality-report",
                                            className="button",
                                            disabled=True,
                                        ),
                                    ],
                                    className="choices",
                                ),
                                html.Div(id="quality-report-why", className="muted small"),
                                html.Div(id="quality-report-problem", className="problem-text", role="alert"),
                                html.Div(id="quality-drift-window-table"),
                            ],
                            note=html.Span(id="quality-drift-pair"),
                        ),
                        id="quality-drift-one",
                        hidden=True,
                    ),
                    quality_reports.layout(),
                ],
                className="grid-runs",
            ),
            dcc.Store(id="quality-report-request"),
        ],
        id="quality-drift",
        className="stack spaced",
    )


def _choice(name: str) -> Element:
    return html.Div(
        dmc.Select(
            id=f"quality-drift-{name}",
            label=_LABELS[name],
            data=[],
            allowDeselect=False,
            size="sm",
            comboboxProps={"shadow": "md"},
        ),
        id=f"quality-drift-{name}-choice",
        className="choice",
        hidden=True,
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """Fill the cards for what is chosen."""

    def show(
        data: Mapping[str, Any] | None,
        _tick: int | None,
        scheme: str | None,
        granularity: str | None,
        reference: str | None,
        part: str | None,
        window: str | None,
    ) -> Any:
        if data is None or scheme is None:
            raise PreventUpdate
        view = console.view(data)
        if not view.endpoint:
            raise PreventUpdate
        drift = console.drift.drift(view, DriftChoice(granularity, reference, part))
        ends = drift.windows()
        end = next((one for one in ends if one.isoformat() == window), ends[0] if ends else None)
        one = drift.of_window(end) if end is not None else pl.DataFrame()
        request, why = report_request(view.endpoint, one, drift.slice)
        if console.services.drift_reports is None:
            request, why = None, ""
        note, body, verdict = _drift(drift, scheme, view.zone)
        return (
            *_choices("granularity", drift.granularities, drift.granularity, str),
            *_choices("reference", drift.references, drift.reference, _reference_choice),
            *_choices("slice", drift.slices, drift.slice, slice_words),
            [{"value": each.isoformat(), "label": _window_label(drift, each, view.zone)} for each in ends],
            None if end is None else end.isoformat(),
            end is None,
            note,
            body,
            verdict,
            end is None,
            _pair(one, drift, view.zone),
            window_table(one),
            request,
            request is None,
            why,
        )

    callbacks.server(
        show,
        [
            *(
                Output(f"quality-drift-{name}{'-choice' if what == 'hidden' else ''}", what)
                for name in (*_CHOICES, "window")
                for what in ("data", "value", "hidden")
            ),
            Output("quality-drift-note", "children"),
            Output("quality-drift-body", "children"),
            Output("quality-drift-verdict", "children"),
            Output("quality-drift-one", "hidden"),
            Output("quality-drift-pair", "children"),
            Output("quality-drift-window-table", "children"),
            Output("quality-report-request", "data"),
            Output("quality-report", "disabled"),
            Output("quality-report-why", "children"),
        ],
        [
            Input("view", "data"),
            Input("quality-tick", "n_intervals"),
            Input("scheme", "data"),
            *(Input(f"quality-drift-{name}", "value") for name in (*_CHOICES, "window")),
        ],
        problems=Output("quality-drift-problem", "children"),
    )
    callbacks.browser(
        "askForReport",
        [Output("quality-report-problem", "children"), Output("quality-acted", "data", allow_duplicate=True)],
        [Input("quality-report", "n_clicks")],
        [State("quality-report-request", "data")],
        initial=False,
    )


def _choices(name: str, values: Sequence[str], chosen: str | None, words: Any) -> tuple[Any, ...]:
    return [{"value": each, "label": words(each)} for each in values], chosen or None, len(values) < 2


def _reference_choice(reference: str) -> str:
    words = reference_words(reference)
    return words[:1].upper() + words[1:]


def report_request(endpoint: str, rows: pl.DataFrame, part: str) -> tuple[dict[str, Any] | None, str]:
    """The body that asks the API for the report of one window pair, or ``None`` and why there can be none."""
    if rows.is_empty():
        return None, ""
    window, against = rows.row(0, named=True)["window"], rows.row(0, named=True)["window_cmp"]
    if against is None or against == window:
        return None, "A report is of two windows; this one is not compared with another window."
    body: dict[str, Any] = {
        "endpoint": endpoint,
        "window": {side: window[side].isoformat() for side in ("start", "end")},
        "against": {side: against[side].isoformat() for side in ("start", "end")},
    }
    return body if part == WHOLE else {**body, "slice": part}, ""


def _drift(drift: Drift, scheme: str, zone: str) -> tuple[str, Element, Element | None]:
    """The note, the heat map or why there is none, and the verdict on the newest window."""
    if drift.granularity is None:
        return (
            "",
            empty(
                "quality",
                "No window has been compared yet",
                html.P(
                    "Each closed window is compared with a reference: the one before it, unless servelens.yaml says otherwise. "
                    "The first result shows after two windows."
                ),
            ),
            None,
        )
    against = f"Each window of {drift.granularity} is compared with {reference_words(drift.reference)}"
    against += "." if drift.slice == WHOLE else f", {slice_words(drift.slice)} alone."
    # Windows with too few records have no verdict: that is not stability.
    if drift.rows.is_empty() or drift.rows["drifted"].is_null().all():
        return (
            against,
            empty(
                "quality",
                f"No two windows of {drift.granularity} have enough records yet",
                html.P("A comparison needs records on both sides. It shows here once there are."),
            ),
            badge("Insufficient data", "neutral"),
        )
    newest = drift.of_window(drift.windows()[0])
    moved = newest.filter(newest["drifted"].fill_null(False))["column_name"].to_list()
    told = newest["drifted"].is_not_null().any()
    named = ", ".join(moved[:4]) + (" …" if len(moved) > 4 else "")
    words = (
        f"In the newest window {formats.plural(len(moved), 'column')} drifted: {named}."
        if moved
        else "No column drifted in the newest window."
        if told
        else "The newest window has too few records to tell."
    )
    columns = drift.rows["column_name"].n_unique()
    cut = (
        f" Shown are the {drift_figures.MOST_COLUMNS} of {columns:,} columns that moved most."
        if columns > drift_figures.MOST_COLUMNS
        else ""
    )
    return (
        f"{words} {against} Colour: size of the effect. A dot: significant, corrected for all columns and windows. "
        f"?: insufficient data.{cut}",
        html.Div(
            dcc.Graph(
                figure=drift_figures.drift_heat(drift, scheme, zone),
                config=dict(GRAPH_CONFIG),
                style={"height": f"{drift_figures.heat_height(drift)}px"},
                responsive=True,
            ),
            role="img",
            className="wide-chart",
            **{"aria-label": f"Drift per column and window. {words}"},
        ),
        badge(f"{len(moved)} drifted", "warning", icon_name="alert")
        if moved
        else badge("Stable", "good", icon_name="check")
        if told
        else badge("Insufficient data", "neutral"),
    )


def window_table(rows: pl.DataFrame) -> Element | None:
    """The verdicts of one window, effect beside p."""
    if rows.is_empty():
        return None
    cells = []
    for row in rows.iter_rows(named=True):
        effect = drift_figures.EFFECTS.get(row["effect_name"], "")
        cells.append(
            [
                html.Span(row["column_name"], className="strong column-name", title=row["column_name"]),
                badge(drift_figures.verdict(row["drifted"]), _TONES[row["drifted"]]),
                html.Span(formats.significant(row["effect"]), title=effect or None),
                formats.p_value(row["p_adjusted"]).removeprefix("p = ").removeprefix("p "),
                html.Span(effect or formats.MISSING, className="muted small"),
            ]
        )
    head = ["Column", "Verdict", "Effect, 0 to 1", "p, corrected", "The effect is"]
    return table(head, cells, numeric_from=9, caption="Verdicts of the chosen window, by column")


def _pair(rows: pl.DataFrame, drift: Drift, zone: str) -> str:
    if rows.is_empty():
        return ""
    row = rows.row(0, named=True)
    own = _span(row["window"], zone)
    if row["window_cmp"] is None or row["window_cmp"] == row["window"]:
        return f"{own}, compared with {reference_words(drift.reference)}"
    return f"{own}, compared with {_span(row['window_cmp'], zone)}"


def _span(window: Mapping[str, datetime], zone: str) -> str:
    start, end = (formats.moment(window[side], zone, seconds=False) for side in ("start", "end"))
    return f"{start} to {end}"


def _window_label(drift: Drift, end: datetime, zone: str) -> str:
    mine = drift.of_window(end)
    moved = int(mine["drifted"].fill_null(False).sum())
    told = mine["drifted"].is_not_null().any()
    start = formats.moment(mine.row(0, named=True)["window"]["start"], zone, seconds=False)
    return f"{start} · {f'{moved} drifted' if moved else 'stable' if told else 'insufficient data'}"
