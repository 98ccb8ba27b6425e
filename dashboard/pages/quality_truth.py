"""How good the model was where the truth is known: accuracy and F1, or errors, by variant, and what was taken for what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import Input, Output, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import formats, truth_figures
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import GRAPH_CONFIG, Element, card, problem_slot, table
from dashboard.truth_queries import ALL, ArmQuality, ModelQuality, is_truth
from evaluators.ground_truth.quality import Classification, Interval

_MOST = 4


def layout() -> Element:
    """The place of the cards."""
    return html.Div([problem_slot("quality-truth-problem"), html.Div(id="quality-truth", className="stack")])


def register(callbacks: Callbacks, console: Console) -> None:
    """Fill the cards, one for each truth."""

    def truth(data: Mapping[str, Any] | None, _tick: int | None, scheme: str | None) -> Any:
        if data is None or scheme is None:
            raise PreventUpdate
        view = console.view(data)
        names = console.quality.evaluators(view) if view.endpoint else ()
        truths = dict.fromkeys(one.evaluator for one in names if is_truth(one.evaluator))
        found = [console.truths.quality(view, name) for name in list(truths)[:_MOST]]
        return [truth_card(each, scheme, view.zone) for each in found if each is not None]

    callbacks.server(
        truth,
        [Output("quality-truth", "children")],
        [Input("view", "data"), Input("quality-tick", "n_intervals"), Input("scheme", "data")],
        problems=Output("quality-truth-problem", "children"),
    )


def truth_card(quality: ModelQuality, scheme: str, zone: str) -> Element:
    """Measures by variant; with classes also the confusion matrix of all records."""
    whole = quality.arms[0]
    tables: list[Element] = []
    if any(arm.classes for arm in quality.arms):
        tables.append(_classes(quality))
    if any(arm.numbers for arm in quality.arms):
        tables.append(_numbers(quality))
    if not tables:
        known = formats.plural(whole.truths, "answer has", "answers have")
        tables.append(html.P(f"{known} a known truth: too few to tell.", className="muted"))
    body: Any = html.Div(tables, className="stack")
    if whole.classes is not None:
        body = html.Div([body, _confusion(whole.classes, scheme)], className="truth-grid")
    name = quality.evaluator.partition(".")[2]
    since = (
        f"the newest {whole.truths:,}, since {formats.moment(quality.since, zone)}"
        if quality.cut
        else f"{formats.plural(whole.truths, 'answer')} with a known truth"
    )
    return card(
        f"Model quality by {name}" if name else "Model quality",
        body,
        note=f"against the truth that came as feedback; {since}",
        class_name="spaced",
    )


def _classes(quality: ModelQuality) -> Element:
    rows = []
    for arm in quality.arms:
        found = arm.classes
        rows.append(
            [
                _name(arm),
                formats.count(found.count if found else arm.truths),
                *(
                    (
                        formats.percent(found.accuracy, 1),
                        _interval(found.accuracy_interval, percent=True),
                        formats.significant(found.f1.macro),
                        formats.significant(found.precision.macro),
                        formats.significant(found.recall.macro),
                    )
                    if found
                    else (_few(), *(formats.MISSING,) * 4)
                ),
            ]
        )
    head = ["Variant", "Truths", "Accuracy", "95 % interval", "F1", "Precision", "Recall"]
    return table(
        head, rows, caption="Quality of predicted classes by variant; F1, precision and recall are macro"
    )


def _numbers(quality: ModelQuality) -> Element:
    rows = []
    for arm in quality.arms:
        found = arm.numbers
        rows.append(
            [
                _name(arm),
                formats.count(found.count if found else arm.truths),
                *(
                    (
                        formats.significant(found.mae),
                        _interval(found.mae_interval, percent=False),
                        formats.significant(found.rmse),
                        formats.percent(found.mape, 1),
                        formats.significant(found.r2),
                    )
                    if found
                    else (_few(), *(formats.MISSING,) * 4)
                ),
            ]
        )
    head = ["Variant", "Truths", "MAE", "95 % interval", "RMSE", "MAPE", "R²"]
    return table(head, rows, caption="Errors of predicted numbers by variant")


def _confusion(quality: Classification, scheme: str) -> Element:
    shown = truth_figures.shown_classes(quality)
    most = quality.confusion[0]
    words = (
        f"Confusion matrix of {len(shown)} classes; most often {most.label} was taken for {most.prediction}"
    )
    return html.Div(
        [
            html.H3("What was said of what was true"),
            html.Div(
                dcc.Graph(
                    figure=truth_figures.confusion(quality, scheme),
                    config=dict(GRAPH_CONFIG),
                    style={"height": f"{truth_figures.confusion_height(quality)}px"},
                    responsive=True,
                ),
                role="img",
                **{"aria-label": words},
            ),
        ]
    )


def _name(arm: ArmQuality) -> Element:
    return html.Span("All variants" if arm.arm == ALL else arm.arm, className="strong")


def _few() -> Element:
    return html.Span("too few", className="muted")


def _interval(interval: Interval | None, *, percent: bool) -> str:
    if interval is None:
        return formats.MISSING
    low, high = (
        formats.percent(value, 1) if percent else formats.significant(value)
        for value in (interval.low, interval.high)
    )
    return f"{low} to {high}"
