"""Send a request to the relabeling queue: the form in the request's side panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from collector.catalog import UNROUTED
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, icon, problem_slot
from dashboard.page_caller import page_caller
from relabel.case import checked_annotator
from servelens.errors import Invalid


def layout() -> Element:
    """The form. Who has an API key is known by its name; others may say who they are."""
    return html.Details(
        [
            html.Summary([icon("relabel"), " Send to the relabeling queue"]),
            html.Div(
                [
                    dmc.TextInput(
                        id="request-queue-reason",
                        label="Why should somebody look at it?",
                        placeholder="In a sentence; whoever labels it reads this",
                        value="",
                        debounce=False,
                    ),
                    html.Div(
                        dmc.TextInput(
                            id="request-queue-name",
                            label="Your name",
                            value="",
                            debounce=False,
                            persistence=True,
                            persistence_type="local",
                        ),
                        hidden=page_caller() is not None,
                    ),
                    problem_slot("request-queue-problem"),
                    html.Div(
                        [
                            html.Button(
                                "Send to queue", id="request-queue", className="button button-primary"
                            ),
                            html.Div(id="request-queue-done", **{"aria-live": "polite"}),
                        ],
                        className="toolbar",
                    ),
                ],
                className="dialog-form",
            ),
        ],
        className="manage queueing",
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the form."""

    def send(
        clicks: int | None,
        request_id: str | None,
        data: Mapping[str, Any] | None,
        reason: str | None,
        name: str | None,
    ) -> Any:
        if not clicks or not request_id or data is None:
            raise PreventUpdate
        endpoint = console.view(data).endpoint
        if endpoint == UNROUTED:
            raise Invalid("it reached no endpoint, so nobody labels it", fix="Send requests of an endpoint.")
        if not (reason or "").strip():
            raise Invalid("the reason is missing", fix="Say in a sentence why somebody should look at it.")
        caller = page_caller()
        if caller is None and (name or "").strip():
            caller = checked_annotator(str(name))
        queued = console.manual.add(endpoint, request_id, reason=str(reason), by=caller)
        words = (
            "It is a new case: " if queued.created else "It, or one just like it, was in the queue already: "
        )
        link = dcc.Link(
            f"case {queued.case_id}", href=f"/relabel?endpoint={endpoint}&tab=queue&case={queued.case_id}"
        )
        return html.Span([words, link]), ""

    callbacks.server(
        send,
        [Output("request-queue-done", "children"), Output("request-queue-reason", "value")],
        [Input("request-queue", "n_clicks")],
        [
            State("request-id", "data"),
            State("view", "data"),
            State("request-queue-reason", "value"),
            State("request-queue-name", "value"),
        ],
        problems=Output("request-queue-problem", "children"),
        initial=False,
    )
    # What was said of one request is not of the next.
    callbacks.browser(
        "anotherRequest",
        [
            Output("request-queue-done", "children", allow_duplicate=True),
            Output("request-queue-reason", "value", allow_duplicate=True),
            Output("request-queue-problem", "children", allow_duplicate=True),
        ],
        [Input("request-id", "data")],
        initial=False,
    )
