"""The building blocks of every page, so that all pages look alike. Text given to them is always shown as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

Element = Any

GRAPH_CONFIG: Mapping[str, Any] = {
    "displayModeBar": False,
    "responsive": True,
    "doubleClick": False,
    "scrollZoom": False,
}


def icon(name: str, class_name: str = "") -> Element:
    """One of the icons in ``assets/icons.css``; decorative, hidden from screen readers."""
    return html.Span(className=f"icon icon-{name} {class_name}".strip(), **{"aria-hidden": "true"})


def page_head(title: str, lead: str, actions: Sequence[Element] = ()) -> Element:
    """The heading of a page."""
    return html.Header(
        [
            html.Div([html.H1(title), html.P(lead, className="lead")], className="page-title"),
            html.Div(list(actions), className="page-actions"),
        ],
        className="page-head",
    )


def card(
    title: str | None,
    children: Any,
    *,
    note: Any = None,
    actions: Sequence[Element] = (),
    class_name: str = "",
    **properties: Any,
) -> Element:
    """A titled panel."""
    head = (
        html.Div(
            [
                html.Div(
                    [html.H2(title), html.Span(note, className="note") if note is not None else None],
                    className="card-title",
                ),
                html.Div(list(actions), className="card-actions") if actions else None,
            ],
            className="card-head",
        )
        if title
        else None
    )
    return html.Section(
        [head, *(children if isinstance(children, list) else [children])],
        className=f"card {class_name}".strip(),
        **properties,
    )


def graph(identifier: Any, height: int, label: str) -> Element:
    """A chart of fixed height, so that the page does not jump when it is drawn; ``label`` is its text alternative."""
    return html.Div(
        dcc.Graph(
            id=identifier,
            config=dict(GRAPH_CONFIG),
            figure=_blank(),
            style={"height": f"{height}px"},
            className="graph",
            responsive=True,
        ),
        role="img",
        className="graph-frame",
        **{"aria-label": label},
    )


def _blank() -> dict[str, Any]:
    hidden = {"visible": False, "fixedrange": True}
    return {
        "data": [],
        "layout": {
            "xaxis": hidden,
            "yaxis": hidden,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
        },
    }


def tile(label: str, value: str, detail: Any = None, *, tone: str = "", hint: str | None = None) -> Element:
    """One number with its name and what to compare it with."""
    return html.Div(
        [
            html.Div(label, className="tile-label", title=hint),
            html.Div(value, className="tile-value"),
            html.Div(detail, className="tile-detail") if detail is not None else None,
        ],
        className=f"tile {tone}".strip(),
    )


def badge(text: str, tone: str = "neutral", *, icon_name: str | None = None) -> Element:
    """A short word with a tone: neutral, good, warning, bad or accent. The word carries the meaning, not the colour."""
    return html.Span([icon(icon_name) if icon_name else None, text], className=f"badge badge-{tone}")


def legend(colours: Mapping[str, str]) -> Element:
    """Names with their colours."""
    return html.Div(
        [
            html.Span([html.I(style={"background": colour}), name], className="legend-item")
            for name, colour in colours.items()
        ],
        className="legend",
    )


def empty(icon_name: str, title: str, body: Any, actions: Sequence[Element] = ()) -> Element:
    """What a page shows when there is nothing yet, and what to do next."""
    return html.Div(
        [
            html.Div(icon(icon_name), className="empty-icon"),
            html.H2(title),
            html.Div(body, className="empty-body"),
            html.Div(list(actions), className="empty-actions") if actions else None,
        ],
        className="empty",
    )


def problem(message: str, fix: str | None, field: str | None) -> Element:
    """What failed, where, and what to do; the rest of the page stays as it was."""
    return html.Div(
        [
            icon("alert"),
            html.Div(
                [
                    html.Strong(_sentence(message)),
                    html.Span(f" {fix}") if fix else None,
                    html.Div(field, className="problem-field") if field else None,
                ]
            ),
        ],
        className="problem",
        role="alert",
    )


def _sentence(message: str) -> str:
    text = message[:1].upper() + message[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def problem_slot(identifier: str) -> Element:
    """Where a page's callbacks say what failed."""
    return html.Div(id=identifier, className="problem-slot", **{"aria-live": "polite"})


def plain(text: str | None, class_name: str = "") -> Element:
    """Payload text exactly as it is: never HTML, never Markdown."""
    return html.Div(text or "", className=f"plain {class_name}".strip())


def code_block(text: str, identifier: str | None = None) -> Element:
    """Code or JSON, as text, with a button that copies it."""
    properties = {"id": identifier} if identifier else {}
    return html.Div(
        [html.Pre(text, className="code", tabIndex=0, **properties), _copy(text)],
        className="code-frame",
    )


def _copy(text: str) -> Element:
    return html.Div(dcc.Clipboard(content=text, className="copy", title="Copy"), className="copy-frame")


def table(
    head: Sequence[Any], rows: Sequence[Sequence[Any]], *, numeric_from: int = 1, caption: str
) -> Element:
    """A plain table; columns from ``numeric_from`` on are set in tabular figures, to the right."""

    def style(place: int) -> str:
        return "number" if place >= numeric_from else ""

    return html.Div(
        html.Table(
            [
                html.Caption(caption, className="visually-hidden"),
                html.Thead(
                    html.Tr(
                        [
                            html.Th(cell, className=style(place), scope="col")
                            for place, cell in enumerate(head)
                        ]
                    )
                ),
                html.Tbody(
                    [
                        html.Tr([html.Td(cell, className=style(place)) for place, cell in enumerate(row)])
                        for row in rows
                    ]
                ),
            ],
            className="table",
        ),
        className="table-frame",
        tabIndex=0,
        role="region",
        **{"aria-label": caption},
    )


def key(label: str) -> Element:
    """A key on the keyboard."""
    return dmc.Kbd(label, className="key")


def facts(pairs: Sequence[tuple[str, Any]]) -> Element:
    """Names and values, one pair a line."""
    cells: list[Element] = []
    for name, value in pairs:
        cells += [html.Dt(name), html.Dd(value)]
    return html.Dl(cells, className="facts")
