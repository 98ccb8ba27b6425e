"""Charts of scores: over time, their distribution, their labels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from datetime import timedelta

import numpy as np
import plotly.graph_objects as go
import polars as pl

from dashboard import formats
from dashboard.figures import base, bins, escaped, local, time_axis
from dashboard.quality_queries import Scores
from dashboard.queries import ARM, number
from dashboard.theme import arm_dashes, palette
from dashboard.view import Window
from evaluators.ground_truth.quality import wilson

_STEPS = 44
_ENOUGH = 20
_FEWEST_BINS = 12
_MOST_LABELS = 8
_OTHER = "all others"


def spans_decades(scores: Scores) -> bool:
    """Whether scores are positive and so spread out that only a logarithmic axis shows them."""
    values = scores.points["score"] if scores.points.height else pl.Series("score", [], dtype=pl.Float64)
    if not len(values):
        return False
    low, high = values.quantile(0.02), values.quantile(0.98)
    return low is not None and high is not None and low > 0 and high / low > 50


def over_time(scores: Scores, colours: Mapping[str, str], scheme: str | None, zone: str) -> go.Figure:
    """Per arm median and middle half of the scores, or the share of the hits with its 95 % interval."""
    figure = base(scheme)
    starts = bins(scores.window)
    half = scores.window.bin / 2
    dashes = arm_dashes(list(colours))
    for arm, colour in colours.items():
        rows = scores.bins.filter(pl.col(ARM) == arm)
        if not rows.height:
            continue
        if scores.share_of is not None:
            rows, half = _widened(rows, scores.window)
        # A wide bin's middle may be after the end.
        middles = [min(start + half, scores.window.until) for start in rows["bin"].to_list()]
        times = local(middles, zone)
        middle, low, high, texts = _middles(rows, share=scores.share_of is not None)
        figure.add_scatter(
            x=[*times, *reversed(times)],
            y=[*high, *reversed(low)],
            fill="toself",
            fillcolor=_faded(colour, 0.14),
            line={"width": 0},
            mode="lines",
            hoverinfo="skip",
        )
        few = rows.height < max(3, len(starts) // 12)
        figure.add_scatter(
            x=times,
            y=middle,
            name=arm,
            mode="lines+markers" if few else "lines",
            line={"color": colour, "width": 2, "dash": dashes[arm]},
            marker={"size": 6, "color": colour},
            text=texts,
            hovertemplate="%{text}",
        )
    if scores.share_of is not None:
        figure.update_yaxes(tickformat=".3~p")
    elif spans_decades(scores):
        _decades(figure, scores)
    return time_axis(figure, scores.window, zone)


def _widened(rows: pl.DataFrame, window: Window) -> tuple[pl.DataFrame, timedelta]:
    """Bins with enough scores in each for a share to mean something, and half their width."""
    each = float(rows["scored"].sum()) / rows.height
    times = max(1, min(math.ceil(_ENOUGH / each), round(window.length / window.bin) // _FEWEST_BINS))
    width = window.bin * times
    step = width // timedelta(microseconds=1)
    place = (pl.col("bin") - window.since).dt.total_microseconds() // step
    start = window.since + pl.duration(microseconds=place * step)
    merged = rows.group_by(start.alias("bin")).agg(pl.col("hits", "scored").sum()).sort("bin")
    return merged, width / 2


def _middles(rows: pl.DataFrame, *, share: bool) -> tuple[list[float], list[float], list[float], list[str]]:
    """What the line and the lower and upper edge of its band are, and the words, bin by bin."""
    if not share:
        texts = [
            f"{formats.significant(median)} ({formats.plural(count, 'score')})"
            for median, count in rows.select("median", "scored").iter_rows()
        ]
        return rows["median"].to_list(), rows["low"].to_list(), rows["high"].to_list(), texts
    counts = rows.select("hits", "scored").rows()
    bounds = [wilson(hits, scored) for hits, scored in counts]
    return (
        [hits / scored for hits, scored in counts],
        [bound.low for bound in bounds],
        [bound.high for bound in bounds],
        [f"{formats.percent(hits / scored, 1)} ({hits:,} of {scored:,})" for hits, scored in counts],
    )


def shown_labels(scores: Scores) -> list[str]:
    """The labels that :func:`label_shares` shows, the most frequent first."""
    totals = scores.labels.group_by("label").agg(pl.col("count").sum())
    ordered: list[str] = totals.sort(["count", "label"], descending=[True, False])["label"].to_list()
    return ordered if len(ordered) <= _MOST_LABELS else [*ordered[: _MOST_LABELS - 1], _OTHER]


def label_shares(scores: Scores, colours: Mapping[str, str], scheme: str | None) -> go.Figure:
    """The share of each label among an arm's labels, one bar an arm."""
    figure = base(scheme, barmode="group", bargap=0.28, bargroupgap=0.08, hovermode="closest", dragmode=False)
    names = shown_labels(scores)
    ink = palette(scheme).ink_2
    # Bars are drawn from the bottom up.
    for arm, colour in reversed(list(colours.items())):
        mine = dict(scores.labels.filter(pl.col(ARM) == arm).select("label", "count").iter_rows())
        total = sum(mine.values())
        if not total:
            continue
        rest = total - sum(mine.get(name, 0) for name in names)
        counts = [mine.get(name, 0) if name in mine or name != _OTHER else rest for name in names]
        shares = [count / total for count in counts]
        figure.add_bar(
            x=shares[::-1],
            y=names[::-1],
            name=arm,
            orientation="h",
            marker={"color": colour, "line": {"width": 0}},
            text=[formats.percent(share, 1) for share in shares[::-1]],
            textposition="outside",
            textfont={"size": 11, "color": ink},
            cliponaxis=False,
            customdata=[f"{escaped(arm)}: {count:,} of {total:,}" for count in counts[::-1]],
            hovertemplate="%{customdata}<extra></extra>",
        )
    ticks = [0, 0.25, 0.5, 0.75, 1]
    figure.update_xaxes(
        range=[0, 1.12], fixedrange=True, tickvals=ticks, ticktext=[f"{tick:.0%}" for tick in ticks]
    )
    figure.update_yaxes(
        type="category",
        showgrid=False,
        tickmode="array",
        tickvals=names,
        ticktext=[escaped(name if len(name) <= 24 else f"{name[:23]}…") for name in names],
        rangemode="normal",
    )
    return figure


def label_height(scores: Scores, arms: int) -> int:
    """Height in pixels of :func:`label_shares` for so many arms."""
    return max(110, 34 + len(shown_labels(scores)) * (14 + 16 * max(arms, 1)))


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


def _power(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10.0**power:.{-power}f}"


def _faded(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def present(scores: Sequence[str], arms: Sequence[str]) -> list[str]:
    """``arms`` in their order, then other names in ``scores``."""
    return [*arms, *sorted(set(scores) - set(arms))]
