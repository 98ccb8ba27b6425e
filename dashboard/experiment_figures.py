"""Charts of an experiment's result."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import plotly.graph_objects as go

from dashboard import formats
from dashboard.figures import base, local, nice_step
from dashboard.theme import palette

ROW_HEIGHT = 44
_AXIS_HEIGHT = 26
_RISES = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 4, 9, 19, 49, 99, 999, 9999)
_FALLS = (0.0001, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.999)
_TONES = {"better": "good", "worse": "bad", "different": "accent", "inconclusive": "neutral"}


def tone(verdict: str) -> str:
    """The tone of a verdict: good, bad, accent or neutral."""
    return _TONES.get(verdict, "neutral")


def intervals_height(metric: Mapping[str, Any]) -> int:
    """Height in pixels of :func:`intervals`."""
    return ROW_HEIGHT * max(1, len(metric["comparisons"])) + _AXIS_HEIGHT


def change(metric: Mapping[str, Any], value: float | None) -> str:
    """A difference on the metric's own scale in words: relative for logarithms, points for rates."""
    if value is None:
        return formats.MISSING
    if metric["scale"] == "log":
        return formats.lift(math.expm1(value) if value < 700 else math.inf)
    if metric["unit"] == "rate":
        return f"{'+' if value > 0 else ''}{formats.significant(value * 100)} pt"
    suffix = " ms" if metric["unit"] == "ms" else ""
    return f"{'+' if value > 0 else ''}{formats.significant(value)}{suffix}"


def intervals(metric: Mapping[str, Any], scheme: str | None) -> go.Figure:
    """Difference to the control per treatment: a thick fixed-horizon interval on a thin always-valid one."""
    colours = palette(scheme)
    tones = {"good": colours.good, "bad": colours.bad, "accent": colours.accent, "neutral": colours.neutral}
    figure = base(scheme, hovermode="closest", dragmode=False)
    comparisons = metric["comparisons"]
    for comparison in comparisons:
        colour = tones[tone(comparison["verdict"])]
        name = comparison["treatment"]
        always, fixed = comparison["always_valid"], comparison["fixed"]
        if always["low"] is not None:
            figure.add_scatter(
                x=[always["low"], always["high"]],
                y=[name, name],
                mode="lines+markers",
                line={"color": colour, "width": 2},
                marker={"symbol": "line-ns", "size": 12, "line": {"color": colour, "width": 2}},
                hovertemplate=f"always valid: {change(metric, always['low'])} to {change(metric, always['high'])}<extra></extra>",
            )
        if fixed["low"] is not None:
            figure.add_scatter(
                x=[fixed["low"], fixed["high"]],
                y=[name, name],
                mode="lines",
                line={"color": colour, "width": 9},
                opacity=0.45,
                hovertemplate=f"one look: {change(metric, fixed['low'])} to {change(metric, fixed['high'])}<extra></extra>",
            )
        if comparison["difference"] is not None:
            figure.add_scatter(
                x=[comparison["difference"]],
                y=[name],
                mode="markers",
                marker={"color": colour, "size": 11, "line": {"color": colours.surface, "width": 2}},
                hovertemplate=f"{change(metric, comparison['difference'])}<extra></extra>",
            )
    reach = _reach(comparisons)
    ticks = _ticks(metric, reach)
    figure.add_vline(x=0, line={"color": colours.ink_3, "width": 1})
    figure.update_xaxes(
        range=[-reach, reach],
        tickvals=ticks,
        ticktext=["0" if tick == 0 else _short(change(metric, tick)) for tick in ticks],
        fixedrange=True,
        showgrid=True,
        automargin=False,
    )
    figure.update_layout(margin={"l": 4, "r": 4, "t": 4, "b": _AXIS_HEIGHT - 4, "pad": 0})
    several = len(comparisons) > 1
    figure.update_yaxes(
        type="category",
        showgrid=False,
        showticklabels=several,
        range=[-0.5, len(comparisons) - 0.5],
        rangemode="normal",
    )
    return figure


def looks(
    history: Sequence[Mapping[str, Any]], metric: str, alpha: float, scheme: str | None, zone: str
) -> go.Figure:
    """The smallest always-valid p-value so far at each look, on a logarithmic axis, against ``alpha``."""
    colours = palette(scheme)
    figure = base(scheme)
    points: dict[str, tuple[list[datetime], list[float]]] = {}
    for report in history:
        moment = datetime.fromisoformat(report["as_of"])
        for result in report["metrics"]:
            if result["name"] != metric:
                continue
            for comparison in result["comparisons"]:
                p_value = comparison["always_valid"]["running_p"]
                if p_value is not None:
                    times, values = points.setdefault(comparison["treatment"], ([], []))
                    times.append(moment)
                    values.append(max(p_value, 1e-12))
    lowest = alpha
    for place, (treatment, (times, values)) in enumerate(points.items()):
        colour = colours.categories[(place + 1) % len(colours.categories)]
        lowest = min([lowest, *values])
        figure.add_scatter(
            x=local(times, zone),
            y=values,
            name=treatment,
            mode="lines+markers",
            line={"color": colour, "width": 2, "shape": "hv"},
            marker={"size": 5, "color": colour},
            hovertemplate="p %{y:.2g}",
        )
    figure.add_hline(y=alpha, line={"color": colours.ink_3, "width": 1, "dash": "dash"})
    floor = max(-12, math.floor(math.log10(lowest)) if lowest > 0 else -12)
    powers = [power for power in range(floor, 1) if (power - floor) % max(1, -floor // 4) == 0]
    figure.update_yaxes(
        type="log",
        range=[floor - 0.2, 0.2],
        rangemode="normal",
        tickvals=[10.0**power for power in powers],
        ticktext=["1" if power == 0 else f"10<sup>{power}</sup>" for power in powers],
    )
    return figure


def _short(words: str) -> str:
    return re.sub(r"\.?0+(?= |$)", "", words) if "." in words else words


def _reach(comparisons: Sequence[Mapping[str, Any]]) -> float:
    ends = [
        abs(end)
        for comparison in comparisons
        for end in (
            comparison["difference"],
            *(comparison[kind][side] for kind in ("fixed", "always_valid") for side in ("low", "high")),
        )
        if end is not None
    ]
    return max(ends, default=1.0) * 1.12 or 1.0


def _ticks(metric: Mapping[str, Any], reach: float) -> list[float]:
    """Zero and one readable tick on either side, on the metric's scale."""
    if metric["scale"] != "log":
        step = nice_step(reach * 1e6 / 2) / 1e6
        step = step if step <= reach else step / 2
        return [-step, 0.0, step]
    rises = [math.log1p(change) for change in _RISES if math.log1p(change) <= reach * 0.9]
    falls = [math.log1p(-change) for change in _FALLS if -math.log1p(-change) <= reach * 0.9]
    return [*falls[-1:], 0.0, *rises[-1:]]
