"""How far the evaluators are: where each evaluation stands, how late scores come, and the newest runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from dash import Input, Output, html
from dash.exceptions import PreventUpdate

from dashboard import formats, run_figures
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, badge, card, graph, legend, problem_slot, table
from dashboard.evaluator_notes import reason_words
from dashboard.run_queries import EvaluationStanding, LagPoint
from evaluators.runs.run_history import EvaluationRun

_RUNS = 20
_REASONS = 2
_ERROR = 160
_RUN_TONES = {"succeeded": "good", "failed": "bad", "interrupted": "warning", "running": "accent"}
_STANDINGS = {
    "paused": ("Paused", "neutral", None),
    "failing": ("Failed", "bad", "alert"),
    "late": ("Late", "warning", "clock"),
    "running": ("Running", "accent", None),
    "never": ("Not run yet", "neutral", None),
    "ok": ("Up to date", "good", "check"),
}


def standings_layout() -> Element:
    """The card of the evaluations before it is filled."""
    return html.Div(
        [
            problem_slot("quality-standings-problem"),
            card(
                "Evaluations",
                html.Div(id="quality-standings"),
                note="waiting: how old the oldest record is that has no score yet",
            ),
        ]
    )


def layout() -> Element:
    """The cards of lag and runs before they are filled."""
    return html.Div(
        [
            problem_slot("quality-runs-problem"),
            html.Div(
                card(
                    "Lag",
                    [
                        html.Div(id="quality-lag-legend", className="chart-legend"),
                        graph("quality-lag", 200, "From a request to its score, by evaluator"),
                    ],
                    note="from a request to its score: what 99 % of a run's records did not exceed, the slowest run of each bin",
                ),
                id="quality-lag-card",
                hidden=True,
            ),
            html.Div(id="quality-runs"),
        ],
        className="stack spaced",
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """Fill the cards."""

    def standings(data: Mapping[str, Any] | None, _tick: int | None) -> Any:
        if data is None:
            raise PreventUpdate
        view = console.view(data)
        if not view.endpoint:
            return None
        now = console.services.clock.now()
        return standings_table(console.runs.standings(view.endpoint), now, view.zone)

    callbacks.server(
        standings,
        [Output("quality-standings", "children")],
        [Input("view", "data"), Input("quality-tick", "n_intervals")],
        problems=Output("quality-standings-problem", "children"),
    )

    def runs(data: Mapping[str, Any] | None, _tick: int | None, scheme: str | None) -> Any:
        if data is None or scheme is None:
            raise PreventUpdate
        view = console.view(data)
        if not view.endpoint:
            return {}, None, True, None
        points: Sequence[LagPoint] = console.runs.lag(view.endpoint, view.window)
        now = console.services.clock.now()
        return (
            run_figures.lag(points, view.window, scheme, view.zone),
            legend(run_figures.lag_colours(points, scheme)),
            not points,
            runs_card(console.runs.recent(view.endpoint, _RUNS), now, view.zone),
        )

    callbacks.server(
        runs,
        [
            Output("quality-lag", "figure"),
            Output("quality-lag-legend", "children"),
            Output("quality-lag-card", "hidden"),
            Output("quality-runs", "children"),
        ],
        [Input("view", "data"), Input("quality-tick", "n_intervals"), Input("scheme", "data")],
        problems=Output("quality-runs-problem", "children"),
    )


def standings_table(standings: Sequence[EvaluationStanding], now: datetime, zone: str) -> Element:
    """One row for each evaluation; what needs somebody is told by a word, not by colour alone."""
    if not standings:
        return html.P(
            [
                "No evaluation of this endpoint. Add one under ",
                html.Code("evaluations"),
                " in servelens.yaml.",
            ],
            className="muted",
        )
    rows = []
    for each in standings:
        words, tone, icon_name = _STANDINGS[each.state]
        last = each.last
        rows.append(
            [
                html.Span(
                    [
                        html.Div(each.evaluation.name, className="strong"),
                        html.Div(_schedule(each), className="muted small"),
                        html.Div(_short(last.error), className="muted small", title=last.error)
                        if last is not None and each.state == "failing" and last.error
                        else None,
                    ],
                    className="slim",
                ),
                badge(words, tone, icon_name=icon_name),
                _waiting(each, now),
                formats.milliseconds(last.lag_p99_s * 1000)
                if last is not None and last.lag_p99_s is not None
                else formats.MISSING,
                html.Span(
                    formats.ago(last.started_at, now) if last else formats.MISSING,
                    title=formats.full_moment(last.started_at, zone) if last else None,
                ),
            ]
        )
    head = ["Evaluation", "State", "Waiting", "Lag p99", "Last run"]
    return table(head, rows, numeric_from=2, caption="Evaluations and how far they are")


def _short(error: str) -> str:
    return error if len(error) <= _ERROR else f"{error[: _ERROR - 1]}…"


def _schedule(standing: EvaluationStanding) -> str:
    evaluation = standing.evaluation
    when = (
        f"at {evaluation.cron} UTC"
        if evaluation.every_s is None
        else f"every {evaluation.every_s:g} s"
        if evaluation.every_s < 120
        else f"every {formats.milliseconds(evaluation.every_s * 1000)}"
    )
    what = "" if evaluation.spec.name == evaluation.name else f"{evaluation.spec.name} of the "
    return f"{what}{standing.target}, {when}"


def _waiting(standing: EvaluationStanding, now: datetime) -> Element:
    if standing.oldest is None:
        return html.Span("nothing", className="muted")
    age = max(0.0, (now - standing.oldest).total_seconds())
    # Of what is held nothing is late: somebody wants it so.
    late = standing.due is not None and now > standing.due and not standing.paused
    return html.Span(formats.milliseconds(age * 1000), className="cell-bad" if late else "")


def runs_card(runs: Sequence[EvaluationRun], now: datetime, zone: str) -> Element:
    """The newest runs with what each did."""
    if not runs:
        return card("Evaluator runs", html.P("No evaluator has run on this endpoint yet.", className="muted"))
    rows = []
    for run in runs:
        what = run.evaluator if run.target is None else f"{run.evaluator} of {run.target}"
        lag = None if run.lag_p99_s is None else run.lag_p99_s * 1000
        took = None if run.duration_s is None else run.duration_s * 1000
        rows.append(
            [
                html.Span(
                    [
                        html.Div(what, className="strong"),
                        html.Div(
                            ", ".join(
                                filter(None, (formats.ago(run.started_at, now), run.trigger, run.device))
                            ),
                            className="muted small",
                            title=formats.full_moment(run.started_at, zone),
                        ),
                    ]
                ),
                html.Span(
                    [
                        badge(run.state, _RUN_TONES.get(run.state, "neutral")),
                        html.Div(run.error, className="muted small") if run.error else None,
                    ],
                    className="slim",
                ),
                formats.count(run.rows),
                _unscored(run),
                formats.count(run.skipped),
                formats.count(run.waiting),
                formats.milliseconds(took),
                formats.count(run.tokens_per_s),
                formats.milliseconds(lag),
            ]
        )
    head = [
        *("Evaluator", "State", "Rows", "Not scored", "Left out", "Waiting"),
        *("Took", "Tokens/s", "Lag p99"),
    ]
    return card(
        "Evaluator runs",
        table(head, rows, numeric_from=2, caption="Evaluator runs"),
        note=f"the newest {len(runs)}; left out: by sampling; waiting: new records when the run ended",
    )


def _unscored(run: EvaluationRun) -> Element:
    if not run.unscored:
        return html.Span("0")
    reasons = sorted(run.unscored_reasons.items(), key=lambda each: -each[1])
    told = [f"{formats.count(number)} {reason.replace('_', ' ')}" for reason, number in reasons[:_REASONS]]
    every = "; ".join(f"{reason_words(reason)}: {number:,}" for reason, number in reasons)
    more = [f"{len(reasons) - _REASONS} more"] if len(reasons) > _REASONS else []
    return html.Span(
        [
            html.Div(formats.count(run.unscored)),
            html.Div(", ".join([*told, *more]), className="muted small", title=every),
        ]
    )
