"""The design language: colours, type and the one plotly template, for a light and a dark scheme.

The same values are custom properties in ``assets/console.css``; a test holds the two together. The categorical colours
were chosen so that the smallest difference between any two stays visible under protanopia, deuteranopia and tritanopia
(matrices of Machado, Oliveira and Fernandes 2009, differences in OKLab) with a contrast of at least 3 : 1 to the
surface. The first two, which most experiments need, differ most; from the third on lines differ in dash as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go

Scheme = Literal["light", "dark"]

FONT = "Inter, ui-sans-serif, system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
DASHES: tuple[str, ...] = ("solid", "solid", "dot", "dash", "dashdot", "longdash")


@dataclass(frozen=True, slots=True)
class Palette:
    """The colours of one scheme, as hex strings."""

    background: str
    surface: str
    raised: str
    line: str
    ink: str
    ink_2: str
    ink_3: str
    accent: str
    good: str
    warning: str
    bad: str
    categories: tuple[str, ...]
    neutral: str
    heat: tuple[tuple[float, str], ...]


LIGHT = Palette(
    background="#f5f6f8",
    surface="#ffffff",
    raised="#f1f3f6",
    line="#e2e5ea",
    ink="#161a21",
    ink_2="#465160",
    ink_3="#657080",
    accent="#2566c8",
    good="#17724a",
    warning="#8f5700",
    bad="#bd2c22",
    categories=("#2566c8", "#d9641a", "#aa1876", "#086311", "#b283be", "#4f2803"),
    neutral="#8a94a3",
    heat=((0.0, "#f3f6fb"), (0.35, "#b9d0f0"), (0.65, "#6d9be0"), (1.0, "#123f86")),
)
DARK = Palette(
    background="#0e1116",
    surface="#161a21",
    raised="#1e232c",
    line="#2a303b",
    ink="#edf0f4",
    ink_2="#b4bdc9",
    ink_3="#8d98a7",
    accent="#5b9bf5",
    good="#4cc38a",
    warning="#e6a23c",
    bad="#f2736a",
    categories=("#5b9bf5", "#f0904e", "#de4277", "#7df7d8", "#d6aeda", "#f1e909"),
    neutral="#7d8898",
    heat=((0.0, "#1b212b"), (0.35, "#24446f"), (0.65, "#3f7ccb"), (1.0, "#b8d6ff")),
)


def palette(scheme: str | None) -> Palette:
    """The colours of ``scheme``; light unless it is ``dark``."""
    return DARK if scheme == "dark" else LIGHT


def arm_colours(arms: Sequence[str], scheme: str | None) -> dict[str, str]:
    """A colour per arm, by its place in the endpoint's own order, so that it never changes with a filter."""
    colours = palette(scheme).categories
    return {arm: colours[place % len(colours)] for place, arm in enumerate(arms)}


def arm_dashes(arms: Sequence[str]) -> dict[str, str]:
    """A dash per arm, beside its colour."""
    return {arm: DASHES[place % len(DASHES)] for place, arm in enumerate(arms)}


def template(scheme: str | None) -> go.layout.Template:
    """The plotly template that every figure of the console uses."""
    colours = palette(scheme)
    axis: dict[str, Any] = {
        "gridcolor": colours.line,
        "linecolor": colours.line,
        "zeroline": False,
        "ticks": "",
        "automargin": True,
        "tickfont": {"size": 11, "color": colours.ink_3},
        "title": {"font": {"size": 11, "color": colours.ink_3}, "standoff": 8},
    }
    return go.layout.Template(
        layout={
            "font": {"family": FONT, "size": 12, "color": colours.ink_2},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": list(colours.categories),
            "margin": {"l": 8, "r": 8, "t": 8, "b": 8, "pad": 4},
            "xaxis": {
                **axis,
                "showgrid": False,
                "tickangle": 0,
                "nticks": 6,
                "hoverformat": "%-d %b, %H:%M:%S",
            },
            "yaxis": {**axis, "rangemode": "tozero", "fixedrange": True, "nticks": 5},
            "hovermode": "x unified",
            "hoverlabel": {
                "bgcolor": colours.raised,
                "bordercolor": colours.line,
                "font": {"family": FONT, "size": 12, "color": colours.ink},
            },
            "legend": {
                "orientation": "h",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": 11, "color": colours.ink_2},
                "itemclick": False,
                "itemdoubleclick": False,
            },
            "showlegend": False,
            "bargap": 0.12,
            "dragmode": "zoom",
        }
    )


def css_properties(colours: Palette) -> Mapping[str, str]:
    """The custom properties of ``assets/console.css`` that mirror ``colours``."""
    names = (
        "background",
        "surface",
        "raised",
        "line",
        "ink",
        "ink_2",
        "ink_3",
        "accent",
        "good",
        "warning",
        "bad",
    )
    return {f"--{name.replace('_', '-')}": getattr(colours, name) for name in names}


def _scale(*shades: str) -> list[str]:
    return list(shades)


MANTINE_THEME: dict[str, Any] = {
    "fontFamily": FONT,
    "fontFamilyMonospace": "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace",
    "primaryColor": "brand",
    "primaryShade": {"light": 6, "dark": 5},
    "autoContrast": True,
    "defaultRadius": "md",
    "cursorType": "pointer",
    "colors": {
        "brand": _scale(
            "#eef4fd",
            "#dbe7fa",
            "#b6cff4",
            "#8fb5ee",
            "#6b9de9",
            "#5b9bf5",
            "#2566c8",
            "#1f57ac",
            "#194890",
            "#123a76",
        ),
        "dark": _scale(
            "#edf0f4",
            "#b4bdc9",
            "#8d98a7",
            "#5a6574",
            "#2a303b",
            "#232934",
            "#1e232c",
            "#161a21",
            "#11151b",
            "#0e1116",
        ),
    },
}
