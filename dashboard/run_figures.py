"""The chart of how late scores come."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from dashboard import formats
from dashboard.figures import base, duration_axis, escaped, local, time_axis
from dashboard.run_queries import LagPoint
from dashboard.theme import arm_colours, arm_dashes
from dashboard.view import Window


def lag_names(points: Sequence[LagPoint]) -> list[str]:
    """The lines of :func:`lag`, in their order."""
    return list(dict.fromkeys(_name(point) for point in points))


def lag_colours(points: Sequence[LagPoint], scheme: str | None) -> dict[str, str]:
    """The colour of each line."""
    return arm_colours(lag_names(points), scheme)


def lag(points: Sequence[LagPoint], window: Window, scheme: str | None, zone: str) -> go.Figure:
    """From a request to its score, the slowest run of each bin, a line for each evaluator."""
    figure = base(scheme)
    colours = lag_colours(points, scheme)
    dashes = arm_dashes(list(colours))
    half = window.bin / 2
    for name, colour in colours.items():
        mine = [point for point in points if _name(point) == name]
        figure.add_scatter(
            x=local([point.start + half for point in mine], zone),
            y=[point.lag_p99_s * 1000 for point in mine],
            name=escaped(name),
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": dashes[name]},
            marker={"size": 5 if len(mine) < 12 else 0, "color": colour, "line": {"width": 0}},
            text=[formats.milliseconds(point.lag_p99_s * 1000) for point in mine],
            hovertemplate="%{text}",
        )
    duration_axis(figure, max((point.lag_p99_s * 1000 for point in points), default=0.0))
    return time_axis(figure, window, zone)


def _name(point: LagPoint) -> str:
    return f"{point.evaluator} of the {point.target}" if point.target == "request" else point.evaluator
