"""Charts of drift: how far each column is from its reference, window by window."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import plotly.graph_objects as go
import polars as pl

from dashboard import formats
from dashboard.drift_queries import Drift
from dashboard.figures import base, escaped
from dashboard.theme import palette

MOST_COLUMNS: Final = 40
_NAME: Final = 32
EFFECTS: Final = {
    "ks_distance": "largest difference of the distributions",
    "tv_distance": "share that moved",
    "separability": "how well a classifier tells the texts apart",
}


def drift_heat(drift: Drift, scheme: str | None, zone: str) -> go.Figure:
    """Effect size per column and window; a dot marks a window in which the column drifted, ``?`` one that cannot tell.

    The :data:`MOST_COLUMNS` with the largest effects are shown.
    """
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
    names = strongest["column_name"].to_list()[-MOST_COLUMNS:]
    shown = [escaped(name if len(name) <= _NAME else f"{name[: _NAME - 1]}…") for name in names]
    starts = rows["start"].unique().sort().to_list()
    cells = {
        (column, start): row
        for column, start, row in (
            (one["column_name"], one["start"], one) for one in rows.iter_rows(named=True)
        )
    }
    labels = [_window_label(start, zone) for start in starts]
    effects = [[_effect(cells.get((name, start))) for start in starts] for name in names]
    texts = [[_explained(cells.get((name, start))) for start in starts] for name in names]
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
    untold = [
        (labels[column], name)
        for name in names
        for column, start in enumerate(starts)
        if (cell := cells.get((name, start))) and cell["drifted"] is None
    ]
    if untold:
        figure.add_scatter(
            x=[mark[0] for mark in untold],
            y=[mark[1] for mark in untold],
            mode="text",
            text=["?"] * len(untold),
            textfont={"color": colours.ink_3, "size": 11},
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
        ticktext=shown,
        rangemode="normal",
    )
    return figure


def verdict(drifted: object) -> str:
    """A verdict in words; ``None`` is insufficient data, which is not the same as no drift."""
    return "Insufficient data" if drifted is None else "Drifted" if drifted else "No drift shown"


def heat_height(drift: Drift) -> int:
    """Height in pixels of :func:`drift_heat`."""
    columns = drift.rows["column_name"].n_unique() if drift.rows.height else 1
    return 26 * min(columns, MOST_COLUMNS) + 46


def _effect(cell: Mapping[str, object] | None) -> float | None:
    value = cell["effect"] if cell else None
    return float(value) if isinstance(value, (int, float)) else None


def _explained(cell: Mapping[str, object] | None) -> str:
    if cell is None:
        return ""
    effect, adjusted = _effect(cell), cell["p_adjusted"]
    lines = [f"<b>{escaped(str(cell['column_name']))}</b>: {verdict(cell['drifted']).lower()}"]
    if effect is not None:
        lines.append(f"{EFFECTS.get(str(cell['effect_name']), 'effect')}: {formats.significant(effect)}")
    if isinstance(adjusted, float):
        lines.append(f"{formats.p_value(adjusted)}, corrected for all columns and windows shown")
    return "<br>".join(lines)


def _window_label(start: datetime, zone: str) -> str:
    local_start = start.astimezone(formats.zone(zone))
    return f"{local_start:%H:%M}<br>{local_start.day} {local_start:%b}"
