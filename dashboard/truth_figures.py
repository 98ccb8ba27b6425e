"""The chart of a confusion matrix."""

from __future__ import annotations

from typing import Final

import plotly.graph_objects as go

from dashboard import formats
from dashboard.figures import base, escaped
from dashboard.theme import palette
from evaluators.ground_truth.quality import Classification

MOST_CLASSES: Final = 12
_NAME: Final = 18


def shown_classes(quality: Classification) -> list[str]:
    """The :data:`MOST_CLASSES` classes with the most records, true or predicted, by name."""
    counts: dict[str, int] = {}
    for cell in quality.confusion:
        for name in {cell.label, cell.prediction}:
            counts[name] = counts.get(name, 0) + cell.count
    return sorted(sorted(counts, key=lambda name: (-counts[name], name))[:MOST_CLASSES])


def confusion(quality: Classification, scheme: str | None) -> go.Figure:
    """What was said, left to right, of what was true, top to bottom; each row adds up to 100 % over all classes."""
    colours = palette(scheme)
    figure = base(scheme, hovermode="closest", dragmode=False)
    names = shown_classes(quality)
    counts = {(cell.label, cell.prediction): cell.count for cell in quality.confusion}
    totals: dict[str, int] = {}
    for cell in quality.confusion:
        totals[cell.label] = totals.get(cell.label, 0) + cell.count
    places = list(range(len(names)))
    shares = [
        [counts.get((true, said), 0) / totals[true] if totals.get(true) else None for said in names]
        for true in names
    ]
    texts = [
        [
            f"true {escaped(true)}, said {escaped(said)}: {counts.get((true, said), 0):,} of {totals.get(true, 0):,}"
            for said in names
        ]
        for true in names
    ]
    figure.add_heatmap(
        z=shares,
        x=places,
        y=places,
        zmin=0,
        zmax=1,
        colorscale=[list(stop) for stop in colours.heat],
        xgap=2,
        ygap=2,
        customdata=texts,
        hovertemplate="%{customdata}<extra></extra>",
        showscale=False,
    )
    for row, true in enumerate(names):
        for column, said in enumerate(names):
            count = counts.get((true, said), 0)
            if not count:
                continue
            dark_cell = (shares[row][column] or 0) > 0.5
            ink = colours.surface if dark_cell else colours.ink
            figure.add_annotation(
                x=column, y=row, text=formats.count(count), showarrow=False, font={"size": 11, "color": ink}
            )
    ticks = [escaped(name if len(name) <= _NAME else f"{name[: _NAME - 1]}…") for name in names]
    figure.update_xaxes(
        tickvals=places,
        ticktext=ticks,
        title={"text": "said"},
        fixedrange=True,
        showgrid=False,
        side="bottom",
    )
    figure.update_yaxes(
        tickvals=places,
        ticktext=ticks,
        title={"text": "true"},
        autorange="reversed",
        rangemode="normal",
        showgrid=False,
    )
    return figure


def confusion_height(quality: Classification) -> int:
    """Height in pixels of :func:`confusion`."""
    return 80 + 30 * len(shown_classes(quality))
