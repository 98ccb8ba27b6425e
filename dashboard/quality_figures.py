"""Charts of scores and drift."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import datetime

import numpy as np
import plotly.graph_objects as go
import polars as pl

from dashboard import formats
from dashboard.figures import base, bins, local, time_axis
from dashboard.quality_queries import Drift, Scores
from dashboard.queries import ARM, number
from dashboard.theme import arm_dashes, palette

_STEPS = 44


def spans_decades(scores: Scores) -> bool:
    """Whether scores are positive and so spread out that only a logarithmic axis shows them."""
    values = scores.points["score"] if scores.points.height else pl.Series("score", [], dtype=pl.Float64)
    if not len(values):
        return False
    low, high = values.quantile(0.02), values.quantile(0.98)
    return low is not None and high is not None and low > 0 and high / low > 50


def over_time(scores: Scores, colours: Mapping[str, str], scheme: str | None, zone: str) -> go.Figure:
    """Median and middle half of the scores per arm."""
    figure = base(scheme)
    starts = bins(scores.window)
    half = scores.window.bin / 2
    dashes = arm_dashes(list(colours))
    for arm, colour in colours.items():
        rows = scores.bins.filter(pl.col(ARM) == arm)
        if not rows.height:
            continue
        times = local([start + half for start in rows["bin"].to_list()], zone)
        figure.add_scatter(
            x=[*times, *reversed(times)],
            y=[*rows["high"].to_list(), *reversed(rows["low"].to_list())],
            fill="toself",
            fillcolor=_faded(colour, 0.14),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )
        few = rows.height < max(3, len(starts) // 12)
        figure.add_scatter(
            x=times,
            y=rows["median"].to_list(),
            name=arm,
            mode="lines+markers" if few else "lines",
            line={"color": colour, "width": 2, "dash": dashes[arm]},
            marker={"size": 6, "color": colour},
            text=[
                f"{formats.significant(median)} ({formats.plural(count, 'score')})"
                for median, count in rows.select("median", "scored").iter_rows()
            ],
            hovertemplate="%{text}",
        )
    if spans_decades(scores):
        _decades(figure, scores)
    return time_axis(figure, scores.window, zone)


def distribution(scores: Scores, colours: Mapping[str, str], scheme: str | None) -> go.Figure:
    """The share of each arm's scores per step of the scale; each arm adds up to 100 %."""
    figure = base(scheme, barmode="overlay", bargap=0.04)
    values = scores.points["score"].to_numpy() if scores.points.height else np.array([])
    if not values.size:
        return figure
    logarithmic = spans_decades(scores)
    scaled = np.log10(values[values > 0]) if logarithmic else values
    low, high = float(scaled.min()), float(scaled.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _STEPS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    for arm, colour in colours.items():
        mine = scores.points.filter(pl.col(ARM) == arm)["score"].to_numpy()
        if not mine.size:
            continue
        counts, _ = np.histogram(np.log10(mine[mine > 0]) if logarithmic else mine, edges)
        shown = [
            f"{formats.significant(float(10**start if logarithmic else start))} to "
            f"{formats.significant(float(10**end if logarithmic else end))}"
            for start, end in itertools.pairwise(edges)
        ]
        figure.add_scatter(
            x=middles,
            y=counts / mine.size,
            name=arm,
            mode="lines",
            line={"color": colour, "width": 2, "shape": "hvh", "dash": arm_dashes(list(colours))[arm]},
            fill="tozeroy",
            fillcolor=_faded(colour, 0.18),
            customdata=shown,
            hovertemplate="%{y:.1%} in %{customdata}",
        )
    figure.update_yaxes(tickformat=".3~p")
    if logarithmic:
        powers = [power for power in range(math.floor(low), math.ceil(high) + 1) if low <= power <= high]
        figure.update_xaxes(tickvals=powers, ticktext=[_power(power) for power in powers])
    return figure


def drift_heat(drift: Drift, scheme: str | None, zone: str) -> go.Figure:
    """Effect size per column and window; a dot marks a window in which the column drifted."""
    colours = palette(scheme)
    figure = base(scheme, hovermode="closest", dragmode=False)
    rows = drift.rows.with_columns(
        pl.col("window").struct.field("start").alias("start"),
        pl.col("window").struct.field("end").alias("end"),
    )
    strongest = (
        rows.group_by("column_name")
        .agg(pl.col("effect").max().alias("most"))
        .sort(["most", "column_name"], nulls_last=False)
    )
    names = strongest["column_name"].to_list()
    starts = rows["start"].unique().sort().to_list()
    cells = {
        (column, start): row
        for column, start, row in (
            (one["column_name"], one["start"], one) for one in rows.iter_rows(named=True)
        )
    }
    labels = [_window_label(start, zone) for start in starts]
    effects = [[_effect(cells.get((name, start))) for start in starts] for name in names]
    texts = [[_explained(cells.get((name, start)), zone) for start in starts] for name in names]
    figure.add_heatmap(
        z=effects,
        x=labels,
        y=names,
        zmin=0,
        zmax=0.6,
        colorscale=[list(stop) for stop in colours.heat],
        xgap=2,
        ygap=2,
        text=texts,
        hovertemplate="%{text}<extra></extra>",
        hoverongaps=False,
        colorbar={
            "thickness": 8,
            "outlinewidth": 0,
            "len": 1,
            "tickvals": [0, 0.2, 0.4, 0.6],
            "ticktext": ["0", "0.2", "0.4", "≥ 0.6"],
            "tickfont": {"size": 11, "color": colours.ink_3},
        },
    )
    marks = [
        (labels[column], name)
        for name in names
        for column, start in enumerate(starts)
        if (cell := cells.get((name, start))) and cell["drifted"]
    ]
    if marks:
        figure.add_scatter(
            x=[mark[0] for mark in marks],
            y=[mark[1] for mark in marks],
            mode="markers",
            marker={
                "color": colours.categories[1],
                "size": 7,
                "line": {"color": colours.surface, "width": 1},
            },
            hoverinfo="skip",
        )
    figure.update_xaxes(
        type="category",
        fixedrange=True,
        tickmode="array",
        tickvals=labels[:: max(1, math.ceil(len(labels) / 6))],
    )
    figure.update_yaxes(
        type="category",
        showgrid=False,
        tickfont={"size": 12, "color": colours.ink_2},
        nticks=None,
        tickmode="array",
        tickvals=names,
        rangemode="normal",
    )
    return figure


def heat_height(drift: Drift) -> int:
    """Height in pixels of :func:`drift_heat`."""
    columns = drift.rows["column_name"].n_unique() if drift.rows.height else 1
    return 26 * columns + 46


def _effect(cell: Mapping[str, object] | None) -> float | None:
    value = cell["effect"] if cell else None
    return float(value) if isinstance(value, (int, float)) else None


def _explained(cell: Mapping[str, object] | None, zone: str) -> str:
    if cell is None:
        return ""
    effect, adjusted = _effect(cell), cell["p_adjusted"]
    what = (
        "largest difference of the distributions"
        if cell["effect_name"] == "ks_distance"
        else "share that moved"
    )
    decided = cell["drifted"]
    verdict = "too few rows to tell" if decided is None else "drifted" if decided else "no drift shown"
    lines = [
        f"<b>{_escaped(str(cell['column_name']))}</b>: {verdict}",
        f"{what}: {formats.significant(effect)}",
    ]
    if isinstance(adjusted, float):
        lines.append(f"{formats.p_value(adjusted)}, corrected for all columns and windows shown")
    return "<br>".join(lines)


def _escaped(text: str) -> str:
    # Plotly reads a few tags in its texts; a column's name must not be one.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _decades(figure: go.Figure, scores: Scores) -> None:
    low = number(scores.bins["low"].min()) or 1e-6
    high = number(scores.bins["high"].max()) or 1.0
    bottom, top = math.log10(max(low, 1e-9)) - 0.1, math.log10(max(high, low * 2)) + 0.1
    powers = range(math.floor(bottom), math.ceil(top) + 1)
    figure.update_yaxes(
        type="log",
        range=[bottom, top],
        rangemode="normal",
        tickvals=[10.0**power for power in powers],
        ticktext=[_power(power) for power in powers],
    )


def _window_label(start: datetime, zone: str) -> str:
    local_start = start.astimezone(formats.zone(zone))
    return f"{local_start:%H:%M}<br>{local_start.day} {local_start:%b}"


def _power(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10.0**power:.{-power}f}"


def _faded(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def present(scores: Sequence[str], arms: Sequence[str]) -> list[str]:
    """``arms`` in their order, then other names in ``scores``."""
    return [*arms, *sorted(set(scores) - set(arms))]
