"""Quality: how good the answers are by each evaluator, what could not be scored, and whether the traffic has drifted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import formats, quality_figures
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import (
    GRAPH_CONFIG,
    Element,
    badge,
    card,
    empty,
    graph,
    icon,
    legend,
    page_head,
    problem_slot,
    table,
)
from dashboard.pages.request_panel import UNSCORED
from dashboard.quality_queries import Drift, EvaluatorName, Scores
from dashboard.queries import ARM
from dashboard.theme import arm_colours
from dashboard.view import View
from evaluators.runs.run_history import EvaluationRun

_TICK_MS = 15_000
_RUNS = 12
_CAVEATS = {
    "toxicity": "Finds rude words well, implied hate hardly: a low score does not clear an answer.",
    "perplexity": "How surprised a small language model is by the answer: lower reads more fluent, not more correct.",
}
_RUN_TONES = {"succeeded": "good", "failed": "bad", "interrupted": "warning", "running": "accent"}


def layout(_console: Console) -> Element:
    """The page before its numbers."""
    return html.Div(
        [
            dcc.Interval(id="quality-tick", interval=_TICK_MS),
            page_head(
                "Quality",
                "What the evaluators say about the recorded traffic, and whether it has drifted.",
                [
                    dmc.SegmentedControl(id="quality-evaluator", data=[], className="scroll-x"),
                    html.Div(id="quality-legend"),
                ],
            ),
            problem_slot("quality-problem"),
            problem_slot("quality-drift-problem"),
            html.Div(id="quality-empty"),
            html.Div(
                [
                    html.Div(
                        [
                            card(
                                "Score over time",
                                graph("quality-time", 250, "Scores over time by variant"),
                                note=html.Span(id="quality-caveat"),
                            ),
                            card(
                                "Distribution",
                                graph("quality-distribution", 250, "Distribution of scores by variant"),
                                note="share of each variant's scores",
                            ),
                        ],
                        className="grid-2",
                    ),
                    html.Div(
                        [
                            card("By variant", html.Div(id="quality-arms")),
                            card(
                                "Not scored", html.Div(id="quality-unscored"), note="never counted as a zero"
                            ),
                        ],
                        className="grid-2",
                    ),
                ],
                id="quality-scores",
                className="stack",
                hidden=True,
            ),
            html.Div(id="quality-drift", className="stack spaced"),
            html.Div(id="quality-runs", className="stack spaced"),
        ]
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the page."""

    def scores(
        data: Mapping[str, Any] | None, _tick: int | None, scheme: str | None, chosen: str | None
    ) -> Any:
        if data is None or scheme is None:
            raise PreventUpdate
        view = console.view(data)
        names = console.quality.evaluators(view) if view.endpoint else ()
        if not names:
            return _unscored_yet(console, view), True, [], None, None, {}, {}, None, None, None
        name = next((one for one in names if one.key == chosen), names[0])
        found = console.quality.scores(view, name)
        arms = quality_figures.present(found.arms[ARM].to_list(), console.services.arms(view.endpoint))
        present = set(found.arms[ARM].to_list())
        colours = {arm: colour for arm, colour in arm_colours(arms, scheme).items() if arm in present}
        return (
            None,
            False,
            [{"value": one.key, "label": _label(one, names)} for one in names],
            name.key,
            legend(colours),
            quality_figures.over_time(found, colours, scheme, view.zone),
            quality_figures.distribution(found, colours, scheme),
            ["Median and middle half. ", _CAVEATS.get(name.evaluator, "")],
            _arms(found, colours),
            _reasons(found),
        )

    callbacks.server(
        scores,
        [
            Output("quality-empty", "children"),
            Output("quality-scores", "hidden"),
            Output("quality-evaluator", "data"),
            Output("quality-evaluator", "value"),
            Output("quality-legend", "children"),
            Output("quality-time", "figure"),
            Output("quality-distribution", "figure"),
            Output("quality-caveat", "children"),
            Output("quality-arms", "children"),
            Output("quality-unscored", "children"),
        ],
        [
            Input("view", "data"),
            Input("quality-tick", "n_intervals"),
            Input("scheme", "data"),
            Input("quality-evaluator", "value"),
        ],
        problems=Output("quality-problem", "children"),
    )

    def rest(data: Mapping[str, Any] | None, _tick: int | None, scheme: str | None) -> Any:
        if data is None or scheme is None:
            raise PreventUpdate
        view = console.view(data)
        if not view.endpoint:
            return None, None
        runs = console.services.run_history.recent(endpoint=view.endpoint, limit=_RUNS)
        return (
            _drift(console.quality.drift(view, None), scheme, view.zone),
            html.Div([_runs(runs, console, view.zone), _reports(console, view)], className="grid-runs"),
        )

    callbacks.server(
        rest,
        [Output("quality-drift", "children"), Output("quality-runs", "children")],
        [Input("view", "data"), Input("quality-tick", "n_intervals"), Input("scheme", "data")],
        problems=Output("quality-drift-problem", "children"),
    )


def _label(name: EvaluatorName, names: Sequence[EvaluatorName]) -> str:
    both = sum(1 for one in names if one.evaluator == name.evaluator) > 1
    return f"{name.evaluator.capitalize()} of {name.target}" if both else name.evaluator.capitalize()


def _unscored_yet(console: Console, view: View) -> Element:
    if view.endpoint and console.quality.exists(view.endpoint):
        return empty(
            "clock",
            f"No scores in {view.range_label}",
            html.P("Choose a longer time range to see earlier scores."),
        )
    return empty(
        "quality",
        "Nothing has been scored yet",
        html.P(
            "Evaluators run on a schedule over new records. The first scores show here after the first run."
        ),
        [dcc.Link("See whether there is traffic", href="/", className="button")],
    )


def _arms(scores: Scores, colours: Mapping[str, str]) -> Element:
    by_arm = {row[ARM]: row for row in scores.arms.iter_rows(named=True)}
    rows = [
        [
            html.Span([html.I(style={"background": colour}), arm], className="swatch"),
            formats.count(by_arm[arm]["scored"]),
            formats.count(by_arm[arm]["unscored"]),
            formats.significant(by_arm[arm]["median"]),
            formats.significant(by_arm[arm]["p90"]),
        ]
        for arm, colour in colours.items()
    ]
    return table(
        ["Variant", "Scored", "Not scored", "Median", "90 % are below"], rows, caption="Scores by variant"
    )


def _reasons(scores: Scores) -> Element:
    if not scores.unscored.height:
        return html.P("Everything in this time was scored.", className="muted")
    total = scores.scored + int(scores.unscored["count"].sum())
    rows = [
        [
            UNSCORED.get(reason, str(reason).replace("_", " ")),
            formats.count(number),
            formats.percent(number / total, 1),
        ]
        for reason, number in scores.unscored.iter_rows()
    ]
    return table(["Reason", "Records", "Share"], rows, caption="Records without a score, by reason")


def _drift(drift: Drift, scheme: str, zone: str) -> Element:
    if drift.granularity is None:
        return card(
            "Drift",
            empty(
                "quality",
                "No window has been compared yet",
                html.P(
                    "Each closed window is compared with the one before it. The first result shows after two windows."
                ),
            ),
        )
    # Windows with too few records have no verdict: that is not stability.
    judged = drift.rows.drop_nulls("drifted")
    if judged.is_empty():
        return card(
            "Drift",
            empty(
                "quality",
                f"No two windows of {drift.granularity} have enough records yet",
                html.P("A comparison needs records on both sides. It shows here once there are."),
            ),
        )
    last = drift.rows["window"].struct.field("end").max()
    newest = drift.rows.filter(drift.rows["window"].struct.field("end") == last)
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
    return card(
        "Drift",
        html.Div(
            dcc.Graph(
                figure=quality_figures.drift_heat(drift, scheme, zone),
                config=dict(GRAPH_CONFIG),
                style={"height": f"{quality_figures.heat_height(drift)}px"},
                responsive=True,
            ),
            role="img",
            className="wide-chart",
            **{"aria-label": f"Drift per column and window. {words}"},
        ),
        note=f"{words} Effect size per window of {drift.granularity}; a dot: significant, corrected for all columns and windows.",
        actions=[
            badge(f"{len(moved)} drifted", "warning", icon_name="alert")
            if moved
            else badge("Stable", "good", icon_name="check")
            if told
            else badge("Not enough records", "neutral")
        ],
    )


def _runs(runs: Sequence[EvaluationRun], console: Console, zone: str) -> Element:
    if not runs:
        return card("Evaluator runs", html.P("No evaluator has run on this endpoint yet.", className="muted"))
    now = console.services.clock.now()
    rows = []
    for run in runs:
        what = run.evaluator if run.target is None else f"{run.evaluator} of {run.target}"
        rows.append(
            [
                html.Span(formats.ago(run.started_at, now), title=formats.full_moment(run.started_at, zone)),
                html.Span(what, className="strong"),
                badge(run.state, _RUN_TONES.get(run.state, "neutral")),
                formats.count(run.scored),
                formats.count(run.unscored),
                formats.milliseconds(run.duration_s * 1000)
                if run.duration_s is not None
                else formats.MISSING,
                run.device,
                html.Span(run.error or "", className="wrap muted small"),
            ]
        )
    head = ["Started", "Evaluator", "State", "Scored", "Not scored", "Took", "Device", ""]
    return card(
        "Evaluator runs",
        table(head, rows, numeric_from=99, caption="Evaluator runs"),
        note=f"the newest {len(runs)}",
    )


def _reports(console: Console, view: View) -> Element:
    reports = console.reports.list(view.endpoint)
    if not reports:
        return card(
            "Evidently reports",
            html.P("A report is written for each window that was compared.", className="muted"),
        )
    now = console.services.clock.now()
    items = [
        html.A(
            [
                icon("report"),
                html.Span(one.name, className="report-name"),
                html.Span(formats.ago(one.written_at, now), className="muted small"),
            ],
            href=one.address,
            target="_blank",
            rel="noopener",
            className="report-link",
        )
        for one in reports[:8]
    ]
    return card("Evidently reports", html.Div(items, className="report-list"), note="open in a new tab")
