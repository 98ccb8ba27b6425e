"""Relabel: a person judges one flagged case after the other, with the keyboard; disputes are decided; labels are exported.

Everything that an annotator needs is on one screen. Keys are handled in ``assets/relabel.js``: each presses the button
that shows it, so that mouse, keyboard and screen reader do the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html, no_update
from dash.exceptions import PreventUpdate

from dashboard import formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, badge, icon, page_head, problem_slot
from dashboard.pages import (
    relabel_agreement,
    relabel_alternatives,
    relabel_case,
    relabel_desk,
    relabel_export,
    relabel_feedback,
    relabel_idle,
    relabel_panel,
    relabel_queue,
    relabel_rules,
)
from dashboard.view import View
from relabel.case import CaseState

_TICK_MS = 10_000
_RENEW_MS = 120_000
_PARTS = (
    relabel_desk,
    relabel_alternatives,
    relabel_feedback,
    relabel_queue,
    relabel_panel,
    relabel_export,
)
_PROBLEMS = ("queue-problem", "renew-problem", "feedback-problem", "section-problem")


@dataclass(frozen=True, slots=True)
class Tab:
    """A part of the page. ``section`` makes what it shows of a view in a colour scheme, anew whenever it is opened; the first
    three have a layout of their own.
    """

    name: str
    title: str
    section: Callable[[Console, View, str | None], Element] | None = None


TABS: tuple[Tab, ...] = (
    Tab("label", "Label"),
    Tab(relabel_desk.DISPUTES, "Disputes"),
    Tab("queue", "Queue"),
    Tab("agreement", "Agreement", relabel_agreement.section),
    Tab("rules", "Rules", relabel_rules.section),
)
"""In the order in which they are shown. A tab with a ``section`` is shown under it without further wiring."""


def layout(_console: Console) -> Element:
    """The page before its case."""
    return html.Div(
        [
            dcc.Interval(id="relabel-tick", interval=_TICK_MS),
            dcc.Interval(id="relabel-renew", interval=_RENEW_MS),
            dcc.Store(id="relabel-held"),
            dcc.Store(id="relabel-command"),
            dcc.Store(id="relabel-changed", data=0),
            dcc.Store(id="relabel-labeled", data=[]),
            dcc.Store(id="relabel-tab"),
            page_head(
                "Relabel",
                "Judge what was flagged. Good answers and corrected ones become fine-tuning data.",
                [
                    html.Div(id="relabel-counts", className="badges"),
                    html.Button([icon("download"), "Export"], id="relabel-export", className="button"),
                ],
            ),
            html.Div(
                [
                    html.Nav(
                        [
                            dcc.Link(
                                tab.title, id=f"relabel-tab-{tab.name}", href="/relabel", className="page-tab"
                            )
                            for tab in TABS
                        ],
                        id="relabel-tabs",
                        className="tabs",
                        **{"aria-label": "Relabel"},
                    ),
                    dmc.TextInput(
                        id="relabel-name",
                        placeholder="Your name",
                        leftSection=icon("user"),
                        debounce=False,
                        value="",
                        persistence=True,
                        persistence_type="local",
                        className="annotator-name",
                        **{"aria-label": "Your name, so that others see who labeled"},
                    ),
                ],
                className="tab-bar",
            ),
            *(problem_slot(f"relabel-{part}") for part in _PROBLEMS),
            html.Div(relabel_desk.layout(), className="part part-desk"),
            html.Div(relabel_queue.layout(), className="part part-queue"),
            html.Div(id="relabel-section", className="part part-section"),
            relabel_panel.layout(),
            relabel_export.layout(),
        ],
        id="relabel-page",
        **{"data-tab": "label"},
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the page and of its parts."""
    for part in _PARTS:
        part.register(callbacks, console)
    queue = console.services.queue
    sections = {tab.name: tab.section for tab in TABS if tab.section is not None}

    callbacks.browser(
        "relabelTab",
        [Output("relabel-tab", "data"), *(Output(f"relabel-tab-{tab.name}", "href") for tab in TABS)],
        [Input("url", "search")],
    )

    def look(
        data: Mapping[str, Any] | None,
        _tick: int | None,
        _changed: int | None,
        tab: str | None,
        held: Mapping[str, Any] | None,
    ) -> Any:
        if data is None or tab is None:
            raise PreventUpdate
        view = console.view(data)
        counts = queue.counts(view.endpoint).get(view.endpoint, {})
        badges = [
            badge(f"{formats.count(counts[state])} {state}", relabel_case.STATE_TONES[state])
            for state in CaseState
            if counts.get(state) or state is CaseState.OPEN
        ]
        disputes = tab == relabel_desk.DISPUTES
        idle = relabel_idle.idle_view(console, view, disputes=disputes, finished=False)
        return badges if view.endpoint else [], idle if held is None else no_update

    callbacks.server(
        look,
        [Output("relabel-counts", "children"), Output("relabel-case", "children", allow_duplicate=True)],
        [
            Input("view", "data"),
            Input("relabel-tick", "n_intervals"),
            Input("relabel-changed", "data"),
            Input("relabel-tab", "data"),
        ],
        [State("relabel-held", "data")],
        problems=Output("relabel-queue-problem", "children"),
        initial="initial_duplicate",
    )

    def section(tab: str | None, data: Mapping[str, Any] | None, scheme: str | None) -> Any:
        if tab is None or data is None:
            raise PreventUpdate
        show = sections.get(tab)
        return None if show is None else show(console, console.view(data), scheme)

    callbacks.server(
        section,
        [Output("relabel-section", "children")],
        [Input("relabel-tab", "data"), Input("view", "data"), Input("scheme", "data")],
        problems=Output("relabel-section-problem", "children"),
    )
