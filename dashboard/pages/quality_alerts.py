"""Alerts of an endpoint: where each rule stands, what fires, who is not told, and what there was lately.

Silences are made and ended by the browser through the HTTP API, so that they take the right that the API takes and carry
the name of the caller's key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from hashlib import blake2b
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, badge, card, problem_slot
from dashboard.pages import alert_views
from evaluators.alerts.overview import worst

_LATELY = timedelta(days=7)
_MOST = 50
_DURATIONS = {"30": "30 minutes", "60": "1 hour", "240": "4 hours", "1440": "1 day", "10080": "1 week"}


def layout() -> Element:
    """The card and the silence dialog."""
    return html.Div(
        [
            problem_slot("quality-alerts-problem"),
            card(
                "Alerts",
                [
                    html.Div(id="quality-unsilence-problem", className="problem-text", role="alert"),
                    html.Div(id="quality-alerts"),
                    # It stays as it was opened, whatever is written into it.
                    html.Details(
                        [html.Summary(id="quality-alerts-ended-title"), html.Div(id="quality-alerts-ended")],
                        id="quality-alerts-ended-card",
                        hidden=True,
                        className="spaced",
                    ),
                    dcc.Store(id="quality-alerts-shown"),
                ],
                actions=[html.Div(id="quality-alerts-badge")],
            ),
            _dialog(),
        ]
    )


def _dialog() -> Element:
    return dmc.Modal(
        id="quality-silence-dialog",
        title="Silence an alert",
        opened=False,
        closeButtonProps={"aria-label": "Close"},
        children=html.Div(
            [
                dcc.Store(id="quality-silence-target"),
                html.P(id="quality-silence-words"),
                html.P("What happens meanwhile is recorded and shown; nobody is told.", className="muted"),
                dmc.Select(
                    id="quality-silence-minutes",
                    label="For",
                    data=[{"value": value, "label": label} for value, label in _DURATIONS.items()],
                    value="60",
                    allowDeselect=False,
                ),
                dmc.TextInput(
                    id="quality-silence-reason",
                    label="Reason",
                    placeholder="So that others know why nobody was told",
                    debounce=False,
                    value="",
                ),
                html.Div(id="quality-silence-problem", className="problem-text", role="alert"),
                html.Button("Silence", id="quality-silence-submit", className="button button-primary"),
            ],
            className="dialog-form",
        ),
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """Fill the card; open, send and end silences."""

    def show(data: Mapping[str, Any] | None, _tick: int | None, _acted: Any, shown: str | None) -> Any:
        if data is None:
            raise PreventUpdate
        view = console.view(data)
        rules = [rule for rule in console.services.alert_rules if rule.endpoint == view.endpoint]
        now = console.services.clock.now()
        alerts = console.alerts.alerts(rules)
        incidents = console.alerts.incidents(endpoint=view.endpoint, since=now - _LATELY, limit=_MOST)
        silences = [
            silence
            for silence in console.silences.list()
            if any(
                replace(silence, slice=None).matches(rule=rule.name, endpoint=rule.endpoint, slice_="")
                for rule in rules
            )
        ]
        body = alert_views.alerts_view(alerts, incidents, silences, view, now)
        title, ended = alert_views.ended_view(incidents, view, now) or (None, None)
        badge_ = _badge(worst(alerts), any_rule=bool(rules))
        # What is drawn anew takes the focus from its buttons: only what has changed is.
        digest = blake2b(str((body, badge_, title, ended)).encode(), digest_size=16).hexdigest()
        if digest == shown:
            return (no_update,) * 6
        return body, badge_, title, ended, ended is None, digest

    callbacks.server(
        show,
        [
            Output("quality-alerts", "children"),
            Output("quality-alerts-badge", "children"),
            Output("quality-alerts-ended-title", "children"),
            Output("quality-alerts-ended", "children"),
            Output("quality-alerts-ended-card", "hidden"),
            Output("quality-alerts-shown", "data"),
        ],
        [Input("view", "data"), Input("quality-tick", "n_intervals"), Input("quality-acted", "data")],
        [State("quality-alerts-shown", "data")],
        problems=Output("quality-alerts-problem", "children"),
    )
    callbacks.browser(
        "openSilence",
        [
            Output("quality-silence-dialog", "opened"),
            Output("quality-silence-target", "data"),
            Output("quality-silence-words", "children"),
            Output("quality-silence-problem", "children"),
        ],
        [
            Input(
                {"type": "quality-silence", "rule": ALL, "endpoint": ALL, "slice": ALL, "place": ALL},
                "n_clicks",
            )
        ],
        initial=False,
    )
    callbacks.browser(
        "silence",
        [
            Output("quality-silence-dialog", "opened", allow_duplicate=True),
            Output("quality-silence-reason", "value"),
            Output("quality-silence-problem", "children", allow_duplicate=True),
            Output("quality-acted", "data", allow_duplicate=True),
        ],
        [Input("quality-silence-submit", "n_clicks"), Input("quality-silence-reason", "n_submit")],
        [
            State("quality-silence-target", "data"),
            State("quality-silence-minutes", "value"),
            State("quality-silence-reason", "value"),
        ],
        initial=False,
    )
    callbacks.browser(
        "endSilence",
        [
            Output("quality-unsilence-problem", "children"),
            Output("quality-acted", "data", allow_duplicate=True),
        ],
        [Input({"type": "quality-unsilence", "id": ALL}, "n_clicks")],
        initial=False,
    )


def _badge(status: str, *, any_rule: bool) -> Element | None:
    if not any_rule:
        return None
    words, tone, icon_name = alert_views.STATUSES[status]
    return badge(words, tone, icon_name=icon_name)
