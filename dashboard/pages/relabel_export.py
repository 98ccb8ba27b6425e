"""The dialog of an export: what it would hold, what it leaves out and why, and the download."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, State, html
from dash.exceptions import PreventUpdate

from dashboard import formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, icon, problem_slot
from relabel.export.openai_chat_export import OpenAIChatExport


def layout() -> Element:
    """The dialog before it is opened."""
    return dmc.Modal(
        id="relabel-dialog",
        title="Export fine-tuning data",
        opened=False,
        size="lg",
        children=[problem_slot("relabel-export-problem"), html.Div(id="relabel-export-summary")],
        closeButtonProps={"aria-label": "Close"},
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the dialog."""

    def summarise(clicks: int | None, data: Mapping[str, Any] | None) -> Any:
        if not clicks or data is None:
            raise PreventUpdate
        view = console.view(data)
        export = OpenAIChatExport(console.services.database, endpoint=view.endpoint or None)
        for _chunk in export:
            pass
        return export_view(export.summary.written, export.summary.left_out, view.endpoint), True

    callbacks.server(
        summarise,
        [Output("relabel-export-summary", "children"), Output("relabel-dialog", "opened")],
        [Input("relabel-export", "n_clicks")],
        [State("view", "data")],
        problems=Output("relabel-export-problem", "children"),
        initial=False,
    )


def export_view(written: int, left_out: Mapping[str, int], endpoint: str) -> Element:
    """What the export holds, what it leaves out and why, and the download."""
    reasons = [
        html.Li(f"{number:,}: {reason.replace('_', ' ')}") for reason, number in sorted(left_out.items())
    ]
    address = f"/api/relabel/export?endpoint={endpoint}" if endpoint else "/api/relabel/export"
    return html.Div(
        [
            html.P(
                [
                    html.Strong(formats.plural(written, "example")),
                    " as OpenAI chat fine-tuning JSONL: answers rated good, and corrected answers.",
                ]
            ),
            html.Div([html.P("Left out:"), html.Ul(reasons)]) if reasons else None,
            html.A(
                [icon("download"), "Download openai-chat.jsonl"],
                href=address,
                download="openai-chat.jsonl",
                className="button button-primary",
                id="relabel-download",
            )
            if written
            else html.P("Label a case first, then there is something to export.", className="muted"),
        ],
        className="stack",
    )
