"""An experiment's metrics: estimates, the interval plot, and what each comparison says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dash import dcc, html

from dashboard import experiment_figures, formats
from dashboard.elements import GRAPH_CONFIG, Element, badge, card

_ROLES = {"primary": ("primary", "accent"), "guardrail": ("guardrail", "neutral")}


def capital(sentence: str) -> str:
    """``sentence`` with its first letter in upper case."""
    return sentence[:1].upper() + sentence[1:]


def metrics_card(report: Mapping[str, Any], scheme: str) -> Element:
    """All metrics of a report (:mod:`experiments.report`), one row each."""
    explanation = html.Span(
        [
            html.Span(className="key-thin"),
            "always valid: holds however often you look",
            html.Span(className="key-thick"),
            "fixed: holds for one look at a planned time",
        ],
        className="interval-key",
    )
    return card(
        "Metrics",
        html.Div([_metric(metric, scheme) for metric in report["metrics"]], className="metrics"),
        note=explanation,
    )


def _metric(metric: Mapping[str, Any], scheme: str) -> Element:
    better = {"higher": "higher is better", "lower": "lower is better"}.get(
        metric["better"] or "", "no good direction"
    )
    estimates = [
        html.Div(
            [html.Span(name, className="muted"), html.Strong(estimate(metric, variant["estimate"]))],
            className="estimate",
        )
        for name, variant in metric["variants"].items()
    ]
    figure = experiment_figures.intervals(metric, scheme)
    plot = dcc.Graph(
        figure=figure,
        config={**GRAPH_CONFIG, "staticPlot": False},
        style={"height": f"{experiment_figures.intervals_height(metric)}px"},
        className="graph",
        responsive=True,
    )
    return html.Div(
        [
            html.Div(
                [
                    html.Div(
                        [
                            html.Strong(capital(metric["label"])),
                            _ROLES.get(metric["role"]) and badge(*_ROLES[metric["role"]]),
                        ],
                        className="badges",
                    ),
                    html.Div(better, className="muted small"),
                ],
                className="metric-name",
            ),
            html.Div(estimates, className="metric-estimates"),
            html.Div(plot, className="metric-plot", role="img", **{"aria-label": _spoken(metric)}),
            html.Div(
                [_comparison(metric, comparison) for comparison in metric["comparisons"]],
                className="metric-verdict",
            ),
        ],
        className="metric",
    )


def _comparison(metric: Mapping[str, Any], comparison: Mapping[str, Any]) -> Element:
    always, fixed = comparison["always_valid"], comparison["fixed"]
    several = len(metric["comparisons"]) > 1
    return html.Div(
        [
            html.Div(
                [
                    badge(comparison["verdict"], experiment_figures.tone(comparison["verdict"])),
                    html.Strong(f"{comparison['treatment']} " if several else ""),
                    html.Span(
                        experiment_figures.change(metric, comparison["difference"]), className="strong"
                    ),
                    html.Span(
                        f"{formats.p_value(always['running_p'])}",
                        className="muted",
                        title=f"Always valid, smallest so far. For one look: {formats.p_value(fixed['p_value'])}",
                    ),
                ],
                className="badges",
            ),
            html.Div(capital(comparison["reason"]), className="muted small"),
            *(html.Div(words, className="muted small") for words in _more(comparison)),
        ]
    )


def _more(comparison: Mapping[str, Any]) -> list[str]:
    """What else the comparison says, where it says it; reports of an older release do not."""
    more = []
    ratio = comparison.get("failure_ratio")
    if ratio and ratio["estimate"] is not None and ratio["low"] is not None:
        high = formats.significant(ratio["high"]) if ratio["high"] is not None else "∞"
        more.append(
            f"{formats.significant(ratio['estimate'])} times the failures "
            f"({formats.significant(ratio['low'])} to {high}, exact)"
        )
    ranks = comparison.get("ranks")
    if ranks and ranks["probability"] is not None:
        more.append(
            f"higher than {comparison['control']} in {formats.percent(ranks['probability'], 1)} of pairs of answers"
        )
    if comparison.get("variance_removed") is not None:
        more.append(f"history explains {formats.percent(comparison['variance_removed'], 0)} of the variance")
    committed = comparison.get("committed")
    if committed:
        more.append(
            f"{len(committed['looks'])} of {committed['planned_looks']} planned looks taken, "
            f"{formats.percent(committed['fraction'], 0)} of the planned information"
        )
    return more


def _spoken(metric: Mapping[str, Any]) -> str:
    parts = []
    for one in metric["comparisons"]:
        always = one["always_valid"]
        low, high = (experiment_figures.change(metric, always[side]) for side in ("low", "high"))
        parts.append(
            f"{one['treatment']} against {one['control']}: "
            f"{experiment_figures.change(metric, one['difference'])}, always valid {low} to {high}"
        )
    return f"{metric['label']}. " + "; ".join(parts)


def estimate(metric: Mapping[str, Any], value: float | None) -> str:
    """An estimate in the metric's unit."""
    if metric["unit"] == "rate":
        return formats.percent(value)
    if metric["unit"] == "ms":
        return formats.milliseconds(value)
    return formats.significant(value)
