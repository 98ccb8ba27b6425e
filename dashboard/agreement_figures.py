"""Charts of agreement: intervals per field, who agrees with whom, and how an evaluator's scores compare with people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import plotly.graph_objects as go

from dashboard import formats
from dashboard.figures import base, escaped
from dashboard.theme import palette

ROW_HEIGHT: Final = 34
RELIABLE: Final = 0.8
"""Krippendorff's mark for labels to rely on (2004, "Content analysis", ch. 11)."""
MOST_PEOPLE: Final = 12
_AXIS_HEIGHT: Final = 30
_NAME: Final = 18
NAMES: Final[Mapping[str, str]] = {
    "fleiss": "Fleiss' κ",
    "alpha": "Krippendorff's α",
    "alpha_masi": "α (MASI)",
    "alpha_jaccard": "α (Jaccard)",
    "f1_exact": "F1, same spans",
    "f1_overlap": "F1, overlapping",
}


def shown_measures(fields: Sequence[Mapping[str, Any]]) -> list[tuple[str, Mapping[str, Any]]]:
    """What :func:`intervals` draws: names and the measures beside the raw agreement that have a value."""
    return [
        (f"{field['field']}: {NAMES[name]}", measure)
        for field in fields
        for name, measure in field["measures"].items()
        if name in NAMES and measure["value"] is not None
    ]


def intervals_height(fields: Sequence[Mapping[str, Any]]) -> int:
    """Height in pixels of :func:`intervals`."""
    return ROW_HEIGHT * max(1, len(shown_measures(fields))) + _AXIS_HEIGHT


def intervals(fields: Sequence[Mapping[str, Any]], scheme: str | None) -> go.Figure:
    """Each measure with its interval, the first at the top; 0 is chance and 1 is always."""
    colours = palette(scheme)
    figure = base(scheme, hovermode="closest", dragmode=False)
    shown = shown_measures(fields)
    lowest = 0.0
    for row, (name, measure) in enumerate(shown):
        value, interval = measure["value"], measure["interval"]
        lowest = min(lowest, value if interval is None else interval["low"])
        words = f"{escaped(name)}: {formats.significant(value)}, {formats.plural(measure['cases'], 'case')}"
        if interval is not None:
            words += (
                f"<br>95 %: {formats.significant(interval['low'])} to {formats.significant(interval['high'])}"
            )
            figure.add_scatter(
                x=[interval["low"], interval["high"]],
                y=[row, row],
                mode="lines",
                line={"color": colours.accent, "width": 6},
                opacity=0.45,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=[value],
            y=[row],
            mode="markers",
            marker={"color": colours.accent, "size": 10, "line": {"color": colours.surface, "width": 2}},
            hovertemplate=f"{words}<extra></extra>",
        )
    figure.add_vline(x=0, line={"color": colours.ink_3, "width": 1})
    figure.add_vline(x=RELIABLE, line={"color": colours.ink_3, "width": 1, "dash": "dash"})
    figure.update_xaxes(range=[min(-0.05, lowest - 0.05), 1.02], fixedrange=True, showgrid=True)
    figure.update_yaxes(
        tickvals=list(range(len(shown))),
        ticktext=[escaped(_short(name, 40)) for name, _ in shown],
        range=[len(shown) - 0.5, -0.5],
        rangemode="normal",
        showgrid=False,
    )
    return figure


def shown_people(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The :data:`MOST_PEOPLE` people with the most cases in common with others, by name."""
    cases: dict[str, int] = {}
    for pair in pairs:
        for name in (pair["first"], pair["second"]):
            cases[name] = cases.get(name, 0) + pair["cases"]
    return sorted(sorted(cases, key=lambda name: (-cases[name], name))[:MOST_PEOPLE])


def pair_matrix(pairs: Sequence[Mapping[str, Any]], scheme: str | None) -> go.Figure:
    """Cohen's kappa of every two people on one field; a pair without one is left blank."""
    colours = palette(scheme)
    figure = base(scheme, hovermode="closest", dragmode=False)
    names = shown_people(pairs)
    place = {name: at for at, name in enumerate(names)}
    cells: list[list[float | None]] = [[None] * len(names) for _ in names]
    texts = [["" for _ in names] for _ in names]
    for pair in pairs:
        if pair["first"] not in place or pair["second"] not in place:
            continue
        value = pair["kappa"]["value"]
        both = f"{escaped(pair['first'])} and {escaped(pair['second'])}"
        words = (
            f"{both}: κ {formats.significant(value)}, same answer to {formats.percent(pair['raw']['value'], 0)} "
            f"of {formats.plural(pair['cases'], 'case')}"
            if value is not None
            else f"{both}: {escaped(pair['kappa']['reason'] or '')}"
        )
        for row, column in (
            (place[pair["first"]], place[pair["second"]]),
            (place[pair["second"]], place[pair["first"]]),
        ):
            cells[row][column], texts[row][column] = value, words
            if value is not None:
                ink = colours.surface if value > 0.5 else colours.ink
                figure.add_annotation(
                    x=column, y=row, text=f"{value:.2f}", showarrow=False, font={"size": 11, "color": ink}
                )
    places = list(range(len(names)))
    figure.add_heatmap(
        z=cells,
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
    ticks = [escaped(_short(name, _NAME)) for name in names]
    figure.update_xaxes(tickvals=places, ticktext=ticks, fixedrange=True, showgrid=False)
    figure.update_yaxes(
        tickvals=places, ticktext=ticks, autorange="reversed", rangemode="normal", showgrid=False
    )
    return figure


def pair_matrix_height(pairs: Sequence[Mapping[str, Any]]) -> int:
    """Height in pixels of :func:`pair_matrix`."""
    return 60 + 32 * len(shown_people(pairs))


def reliability(bins: Sequence[Mapping[str, Any]], scheme: str | None) -> go.Figure:
    """How often people said yes, by score, with intervals; on the diagonal the score is the probability that it claims."""
    colours = palette(scheme)
    figure = base(scheme, hovermode="closest", dragmode=False)
    figure.add_scatter(
        x=[0, 1],
        y=[0, 1],
        mode="lines",
        line={"color": colours.ink_3, "width": 1, "dash": "dash"},
        hoverinfo="skip",
    )
    shares = [each["positive"]["value"] for each in bins]
    spans = [each["positive"]["interval"] for each in bins]
    figure.add_scatter(
        x=[each["mean_score"] for each in bins],
        y=shares,
        mode="lines+markers",
        line={"color": colours.accent, "width": 2},
        marker={"size": 8, "color": colours.accent},
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [span["high"] - share if span else 0 for span, share in zip(spans, shares, strict=True)],
            "arrayminus": [
                share - span["low"] if span else 0 for span, share in zip(spans, shares, strict=True)
            ],
            "color": colours.accent,
            "thickness": 1,
        },
        text=[
            f"scores {formats.significant(each['low'])} to {formats.significant(each['high'])}: people said yes to "
            f"{formats.percent(each['positive']['value'], 0)} of {formats.plural(each['count'], 'record')}"
            for each in bins
        ],
        hovertemplate="%{text}<extra></extra>",
    )
    figure.update_xaxes(range=[-0.02, 1.02], title={"text": "score"}, fixedrange=True, showgrid=True)
    figure.update_yaxes(
        range=[-0.03, 1.03], rangemode="normal", title={"text": "people's yes"}, tickformat=".0%"
    )
    return figure


def precision_recall(found: Mapping[str, Any], scheme: str | None) -> go.Figure:
    """Precision and recall by threshold; the present threshold is dashed, the proposed one dotted."""
    colours = palette(scheme)
    figure = base(scheme, showlegend=True)
    curve = found["curve"]
    thresholds = [point["threshold"] for point in curve]
    for name, colour in (("precision", colours.categories[0]), ("recall", colours.categories[1])):
        figure.add_scatter(
            x=thresholds,
            y=[point[name] for point in curve],
            name=name,
            mode="lines",
            line={"color": colour, "width": 2},
            hovertemplate="%{y:.1%}",
        )
    suggestion = found["suggestion"]
    for threshold, dash in (
        (found["threshold"], "dash"),
        (None if suggestion is None else suggestion["threshold"], "dot"),
    ):
        if threshold is not None:
            figure.add_vline(x=threshold, line={"color": colours.ink_3, "width": 1, "dash": dash})
    figure.update_xaxes(title={"text": "threshold"}, hoverformat=".3~g", showgrid=False)
    figure.update_yaxes(range=[0, 1.02], tickformat=".0%")
    return figure


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
