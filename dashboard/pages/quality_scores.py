"""The scores of one evaluator: over time, their distribution and labels, by variant, and what was not scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import formats, quality_figures
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, card, empty, graph, legend, problem_slot, table
from dashboard.evaluator_notes import note_of, reason_words
from dashboard.quality_queries import EvaluatorName, Scores
from dashboard.queries import ARM
from dashboard.theme import arm_colours
from dashboard.view import View
from evaluators.ground_truth.quality import wilson

_HEIGHT = 250


def layout() -> Element:
    """The cards before their numbers."""
    return html.Div(
        [
            problem_slot("quality-problem"),
            html.Div(id="quality-empty"),
            html.Div(
                [
                    html.Div(
                        [
                            dmc.SegmentedControl(
                                id="quality-evaluator",
                                data=[],
                                className="scroll-x",
                                **{"aria-label": "Evaluator"},
                            ),
                            html.Div(id="quality-legend"),
                        ],
                        className="page-actions",
                    ),
                    html.Div(
                        [
                            card(
                                "Score over time",
                                graph("quality-time", _HEIGHT, "Scores over time by variant"),
                                note=html.Span(id="quality-caveat"),
                            ),
                            html.Div(
                                card(
                                    "Distribution",
                                    graph(
                                        "quality-distribution", _HEIGHT, "Distribution of scores by variant"
                                    ),
                                    note="share of each variant's scores",
                                ),
                                id="quality-distribution-card",
                            ),
                        ],
                        className="grid-2",
                    ),
                    html.Div(
                        [
                            card("By variant", html.Div(id="quality-arms")),
                            html.Div(
                                card(
                                    "Labels",
                                    graph("quality-labels", _HEIGHT, "Share of each label by variant"),
                                    note="share of each variant's labels",
                                ),
                                id="quality-labels-card",
                                className="tall",
                            ),
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
        ],
        className="spaced",
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """Fill the cards for the chosen evaluator."""

    def scores(
        data: Mapping[str, Any] | None, _tick: int | None, scheme: str | None, chosen: str | None
    ) -> Any:
        if data is None or scheme is None:
            raise PreventUpdate
        view = console.view(data)
        names = console.quality.evaluators(view) if view.endpoint else ()
        if not names:
            height = {"height": f"{_HEIGHT}px"}
            return (_unscored_yet(console, view), True, [], None, None, {}, {}, {}, height, False, True) + (
                None,
            ) * 3
        name = next((one for one in names if one.key == chosen), names[0])
        found = console.quality.scores(view, name)
        arms = quality_figures.present(found.arms[ARM].to_list(), console.services.arms(view.endpoint))
        present = set(found.arms[ARM].to_list())
        colours = {arm: colour for arm, colour in arm_colours(arms, scheme).items() if arm in present}
        tall = max(_HEIGHT, quality_figures.label_height(found, len(colours)))
        return (
            None,
            False,
            [{"value": one.key, "label": label(one, names)} for one in names],
            name.key,
            legend(colours),
            quality_figures.over_time(found, colours, scheme, view.zone),
            quality_figures.distribution(found, colours, scheme),
            quality_figures.label_shares(found, colours, scheme),
            {"height": f"{tall}px"},
            # Two bars, at 0 and at 1, would say less than the share.
            found.share_of is not None,
            found.labels.is_empty(),
            caption(name, found),
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
            Output("quality-labels", "figure"),
            Output("quality-labels", "style"),
            Output("quality-distribution-card", "hidden"),
            Output("quality-labels-card", "hidden"),
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


def label(name: EvaluatorName, names: Sequence[EvaluatorName]) -> str:
    """An evaluator as people read it, with its target where there are two."""
    words = name.evaluator.replace("_", " ")
    words = words[:1].upper() + words[1:]
    both = sum(1 for one in names if one.evaluator == name.evaluator) > 1
    return f"{words} of {name.target}" if both else words


def caption(name: EvaluatorName, scores: Scores) -> str:
    """What the lines are, and what the evaluator cannot see."""
    lines = (
        "Median and middle half."
        if scores.share_of is None
        else f"Share “{scores.share_of}”, with its 95 % interval."
    )
    return f"{lines} {note_of(name.evaluator, name.target).caveat}".strip()


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
    paid = scores.arms["cost"].is_not_null().any()
    rows = []
    for arm, colour in colours.items():
        mine = by_arm[arm]
        rows.append(
            [
                html.Span([html.I(style={"background": colour}), arm], className="swatch"),
                formats.count(mine["scored"]),
                formats.count(mine["unscored"]),
                *_typical(mine, share=scores.share_of is not None),
                *([formats.significant(mine["cost"])] if paid else []),
            ]
        )
    typical = (
        ["Median", "90 % are below"]
        if scores.share_of is None
        else [f"Share “{scores.share_of}”", "95 % interval"]
    )
    head = ["Variant", "Scored", "Not scored", *typical, *(["Cost"] if paid else [])]
    return table(head, rows, caption="Scores by variant")


def _typical(arm: Mapping[str, Any], *, share: bool) -> tuple[str, str]:
    if not share:
        return formats.significant(arm["median"]), formats.significant(arm["p90"])
    if not arm["scored"]:
        return formats.MISSING, formats.MISSING
    bounds = wilson(arm["hits"], arm["scored"])
    return (
        formats.percent(arm["hits"] / arm["scored"], 1),
        f"{formats.percent(bounds.low, 1)} to {formats.percent(bounds.high, 1)}",
    )


def _reasons(scores: Scores) -> Element:
    if not scores.unscored.height:
        return html.P("Everything in this time was scored.", className="muted")
    total = scores.scored + int(scores.unscored["count"].sum())
    rows = [
        [reason_words(reason), formats.count(number), formats.percent(number / total, 1)]
        for reason, number in scores.unscored.iter_rows()
    ]
    return table(["Reason", "Records", "Share"], rows, caption="Records without a score, by reason")
