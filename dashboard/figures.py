"""Charts of traffic over time. Every figure uses the one template of :mod:`dashboard.theme`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import plotly.graph_objects as go
import polars as pl

from dashboard import formats
from dashboard.queries import ARM
from dashboard.theme import arm_colours, arm_dashes, palette, template
from dashboard.traffic_queries import Traffic
from dashboard.view import Window

Quantile = Literal["p50", "p95", "p99"]
_DAY_MS = 86_400_000
_TIME_TICKS = [
    {"dtickrange": [None, 60_000], "value": "%H:%M:%S"},
    {"dtickrange": [60_000, _DAY_MS], "value": "%H:%M\n%-d %b"},
    {"dtickrange": [_DAY_MS, None], "value": "%-d %b"},
]


def base(scheme: str | None, **layout: Any) -> go.Figure:
    """An empty figure in the design language; ``uirevision`` keeps the viewer's zoom when live data arrive."""
    return go.Figure(layout={"template": template(scheme), "uirevision": "kept", **layout})


def escaped(text: str) -> str:
    """``text`` for a plotly text, axis or name, which would read a few tags in it."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def local(times: Sequence[datetime], zone: str) -> list[str]:
    """Times in the viewer's zone, without an offset, since plotly draws what it is told."""
    target = formats.zone(zone)
    return [moment.astimezone(target).strftime("%Y-%m-%dT%H:%M:%S.%f") for moment in times]


def bins(window: Window) -> list[datetime]:
    """The starts of all bins in the window."""
    count = round(window.length / window.bin)
    return [window.since + window.bin * place for place in range(count)]


def time_axis(figure: go.Figure, window: Window, zone: str) -> go.Figure:
    """Show exactly the window, in the viewer's zone."""
    start, end = local([window.since, window.until], zone)
    return figure.update_xaxes(type="date", range=[start, end], autorange=False, tickformatstops=_TIME_TICKS)


def requests(traffic: Traffic, arms: Sequence[str], scheme: str | None, zone: str) -> go.Figure:
    """Requests per bin, stacked by arm."""
    figure = base(scheme, barmode="stack")
    starts = bins(traffic.window)
    times = _middles(starts, traffic.window, zone)
    for arm, colour in _present(traffic, arms, scheme).items():
        figure.add_bar(
            x=times,
            y=_series(traffic.bins, starts, arm, "requests", 0),
            name=arm,
            marker={"color": colour, "line": {"width": 0}},
            hovertemplate="%{y:,}",
        )
    figure.update_layout(bargap=0.15)
    return time_axis(figure, traffic.window, zone)


def latency(
    traffic: Traffic, arms: Sequence[str], scheme: str | None, zone: str, quantile: Quantile
) -> go.Figure:
    """One quantile of the duration of the invocations that succeeded, per arm."""
    return _lines(traffic, arms, scheme, zone, quantile, _milliseconds)


def first_token(
    traffic: Traffic, arms: Sequence[str], scheme: str | None, zone: str, quantile: Quantile
) -> go.Figure:
    """One quantile of the time to the first token of streams, per arm."""
    return _lines(traffic, arms, scheme, zone, f"first_token_{quantile}", _milliseconds)


def tokens(traffic: Traffic, arms: Sequence[str], scheme: str | None, zone: str) -> go.Figure:
    """Output tokens per second, per arm."""
    ends = pl.min_horizontal(pl.col("bin") + traffic.window.bin, pl.lit(traffic.as_of))
    # The newest bin is not over yet: divided by its full width it would always look like a drop.
    seconds = pl.max_horizontal((ends - pl.col("bin")).dt.total_milliseconds() / 1000, pl.lit(1.0))
    frame = traffic.bins.with_columns((pl.col("output_tokens") / seconds).alias("output_rate"))
    figure = base(scheme)
    starts = bins(traffic.window)
    times = _middles(starts, traffic.window, zone)
    dashes = arm_dashes(arms)
    for arm, colour in _present(traffic, arms, scheme).items():
        figure.add_scatter(
            x=times,
            y=_series(frame, starts, arm, "output_rate", 0),
            name=arm,
            mode="lines",
            line={"color": colour, "width": 2, "dash": dashes.get(arm, "solid"), "shape": "linear"},
            hovertemplate="%{y:,.3~s} tok/s",
        )
    return time_axis(figure, traffic.window, zone)


def error_rate(traffic: Traffic, arms: Sequence[str], scheme: str | None, zone: str) -> go.Figure:
    """The share of invocations that failed, per arm."""
    frame = traffic.bins.with_columns((pl.col("errors") / pl.col("requests")).alias("rate"))
    figure = base(scheme)
    starts = bins(traffic.window)
    times = _middles(starts, traffic.window, zone)
    dashes = arm_dashes(arms)
    for arm, colour in _present(traffic, arms, scheme).items():
        values = _series(frame, starts, arm, "rate", None)
        figure.add_scatter(
            x=times,
            y=values,
            name=arm,
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": dashes.get(arm, "solid")},
            marker={"size": _lonely_sizes(values), "color": colour, "line": {"width": 0}},
            hovertemplate="%{y:.2%}",
        )
    figure.update_yaxes(tickformat=".3~p")
    return time_axis(figure, traffic.window, zone)


def errors(traffic: Traffic, scheme: str | None, zone: str) -> go.Figure:
    """Failed invocations per bin, stacked by type of error."""
    figure = base(scheme, barmode="stack", showlegend=True, bargap=0.15)
    colours = palette(scheme)
    shades = (colours.bad, *colours.categories[1:])
    starts = bins(traffic.window)
    times = _middles(starts, traffic.window, zone)
    order = (
        traffic.errors.group_by("error")
        .agg(pl.col("count").sum())
        .sort(["count", "error"], descending=[True, False])
    )
    for place, kind in enumerate(order["error"].to_list()):
        rows = dict(traffic.errors.filter(pl.col("error") == kind).select("bin", "count").iter_rows())
        figure.add_bar(
            x=times,
            y=[rows.get(start, 0) for start in starts],
            name=str(kind).replace("_", " "),
            marker={"color": shades[place % len(shades)], "line": {"width": 0}},
            hovertemplate="%{y:,}",
        )
    figure.update_yaxes(tickformat=",d")
    return time_axis(figure, traffic.window, zone)


def _lines(
    traffic: Traffic,
    arms: Sequence[str],
    scheme: str | None,
    zone: str,
    column: str,
    show: Callable[[float | None], str],
) -> go.Figure:
    figure = base(scheme)
    starts = bins(traffic.window)
    times = _middles(starts, traffic.window, zone)
    dashes = arm_dashes(arms)
    highest = 0.0
    for arm, colour in _present(traffic, arms, scheme).items():
        values = _series(traffic.bins, starts, arm, column, None)
        known = [value for value in values if value is not None]
        highest = max([highest, *known])
        figure.add_scatter(
            x=times,
            y=values,
            name=arm,
            mode="lines+markers",
            line={"color": colour, "width": 2, "dash": dashes.get(arm, "solid")},
            marker={"size": _lonely_sizes(values), "color": colour, "line": {"width": 0}},
            text=[show(value) for value in values],
            hovertemplate="%{text}",
        )
    duration_axis(figure, highest)
    return time_axis(figure, traffic.window, zone)


def _lonely_sizes(values: Sequence[float | None]) -> list[int]:
    # A line needs two neighbours; a lonely bin would be invisible without its marker.
    last = len(values) - 1
    return [
        6
        if value is not None
        and (place == 0 or values[place - 1] is None)
        and (place == last or values[place + 1] is None)
        else 0
        for place, value in enumerate(values)
    ]


def duration_axis(figure: go.Figure, highest: float) -> None:
    """Readable ticks up to ``highest``, in milliseconds."""
    if highest <= 0:
        return
    step = nice_step(highest / 4)
    ticks = [step * place for place in range(int(highest / step) + 2)]
    figure.update_yaxes(
        tickvals=ticks,
        ticktext=[axis_milliseconds(tick) for tick in ticks],
        range=[0, max(highest * 1.08, step)],
    )


def axis_milliseconds(value: float) -> str:
    """A tick of a duration axis: ``0``, ``500 ms``, ``2 s``."""
    if value == 0:
        return "0"
    return f"{value:g} ms" if value < 1000 else f"{value / 1000:,g} s"


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5, 10 times a power of ten that is not below ``rough``."""
    power = 10.0 ** len(str(int(rough))) / 10 if rough >= 1 else 0.1
    while power > rough:
        power /= 10
    return next(factor * power for factor in (1, 2, 2.5, 5, 10, 20) if factor * power >= rough)


def _milliseconds(value: float | None) -> str:
    return formats.milliseconds(value)


def _present(traffic: Traffic, arms: Sequence[str], scheme: str | None) -> dict[str, str]:
    present = set(traffic.bins[ARM].to_list()) if traffic.bins.height else set()
    names = [*arms, *sorted(present - set(arms))]
    colours = arm_colours(names, scheme)
    return {arm: colours[arm] for arm in names if arm in present}


def present_colours(traffic: Traffic, arms: Sequence[str], scheme: str | None) -> dict[str, str]:
    """The arms that saw traffic, in the endpoint's order, each with its colour."""
    return _present(traffic, arms, scheme)


def _middles(starts: Sequence[datetime], window: Window, zone: str) -> list[str]:
    half: timedelta = window.bin / 2
    return local([start + half for start in starts], zone)


def _series(
    frame: pl.DataFrame, starts: Sequence[datetime], arm: str, column: str, missing: float | None
) -> list[float | None]:
    rows = dict(frame.filter(pl.col(ARM) == arm).select("bin", column).iter_rows())
    return [rows.get(start, missing) for start in starts]
