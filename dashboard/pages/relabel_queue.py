"""The queue as a list: filtered and cut into pages on the server, a case opens in the side panel.

The pages that were passed are kept as their cursors, so that going back costs what going on does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import ALL, Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import formats, reason_text
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, badge, card, plain, problem_slot, table
from dashboard.pages.relabel_case import STATE_TONES
from relabel.case import CaseState, CaseSummary, ReasonKind

_ROWS = 25
_FILTERS = ("state", "kind", "rule", "evaluator", "annotator")
_ANY = "any"


def layout() -> Element:
    """The filters and the place of the list."""
    return card(
        "Queue",
        [
            problem_slot("relabel-list-problem"),
            # The cursors of the pages up to the one that is shown, the first of them null.
            dcc.Store(id="relabel-cursors", data=[None]),
            dcc.Store(id="relabel-next"),
            html.Div(
                [
                    _select(
                        "state",
                        "State",
                        [
                            (_ANY, "Any state"),
                            *((str(state), str(state).capitalize()) for state in CaseState),
                        ],
                        str(CaseState.OPEN),
                    ),
                    _select(
                        "kind",
                        "Reason",
                        [
                            (_ANY, "Any reason"),
                            *((str(kind), words) for kind, words in reason_text.TITLES.items()),
                        ],
                        _ANY,
                    ),
                    _entry("rule", "Rule"),
                    _entry("evaluator", "Evaluator"),
                    _entry("annotator", "Annotator"),
                ],
                className="choices queue-filters",
                role="search",
                **{"aria-label": "Cases"},
            ),
            html.Div(id="relabel-queue", **{"aria-live": "polite"}),
            html.Div(
                [
                    html.Button("Previous", id="relabel-previous", className="button button-small"),
                    html.Span(id="relabel-place", className="muted small"),
                    html.Button("Next", id="relabel-following", className="button button-small"),
                ],
                className="paging",
            ),
        ],
        note="in the order in which cases are handed out",
    )


def _select(name: str, label: str, options: Sequence[tuple[str, str]], value: str) -> Element:
    return dmc.Select(
        id=f"relabel-filter-{name}",
        label=label,
        data=[{"value": option, "label": words} for option, words in options],
        value=value,
        allowDeselect=False,
        className="choice",
        comboboxProps={"shadow": "md"},
    )


def _entry(name: str, label: str) -> Element:
    return dmc.TextInput(
        id=f"relabel-filter-{name}",
        label=label,
        placeholder="Any",
        value="",
        debounce=350,
        className="choice",
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the list."""
    queue = console.services.queue

    def listed(
        data: Mapping[str, Any] | None,
        _tick: int | None,
        _changed: int | None,
        tab: str | None,
        cursors: Sequence[str | None],
        *chosen: str | None,
    ) -> Any:
        if data is None or tab != "queue":
            raise PreventUpdate
        view = console.view(data)
        state, kind, rule, evaluator, annotator = ((value or "").strip() for value in chosen)
        page = queue.list(
            state=None if state == _ANY else CaseState(state),
            kind=None if kind == _ANY else ReasonKind(kind),
            rule=rule or None,
            evaluator=evaluator or None,
            annotator=annotator or None,
            endpoint=view.endpoint,
            limit=_ROWS,
            cursor=cursors[-1],
        )
        first = (len(cursors) - 1) * _ROWS + 1
        place = f"{first:,}–{first + len(page.cases) - 1:,}" if page.cases else ""
        return (
            _rows(page.cases, console),
            page.next_cursor,
            place,
            len(cursors) == 1,
            page.next_cursor is None,
        )

    callbacks.server(
        listed,
        [
            Output("relabel-queue", "children"),
            Output("relabel-next", "data"),
            Output("relabel-place", "children"),
            Output("relabel-previous", "disabled"),
            Output("relabel-following", "disabled"),
        ],
        [
            Input("view", "data"),
            Input("relabel-tick", "n_intervals"),
            Input("relabel-changed", "data"),
            Input("relabel-tab", "data"),
            Input("relabel-cursors", "data"),
            *(Input(f"relabel-filter-{name}", "value") for name in _FILTERS),
        ],
        problems=Output("relabel-list-problem", "children"),
    )
    callbacks.browser(
        "turnPage",
        Output("relabel-cursors", "data"),
        [
            Input("relabel-previous", "n_clicks"),
            Input("relabel-following", "n_clicks"),
            Input("view", "data"),
            *(Input(f"relabel-filter-{name}", "value") for name in _FILTERS),
        ],
        [State("relabel-cursors", "data"), State("relabel-next", "data")],
        initial=False,
    )
    callbacks.browser(
        "openCase",
        Output("url", "search", allow_duplicate=True),
        [Input({"type": "relabel-open", "case": ALL}, "n_clicks")],
        [State("url", "search")],
        initial=False,
    )


def _rows(cases: Sequence[CaseSummary], console: Console) -> Element:
    if not cases:
        return html.P("No such case.", className="muted")
    now = console.services.clock.now()
    rows = [
        [
            html.Button(
                str(case.id),
                id={"type": "relabel-open", "case": case.id},
                className="link-button",
                **{"aria-label": f"Open case {case.id}"},
            ),
            badge(str(case.state), STATE_TONES[case.state]),
            html.Span("; ".join(reason_text.brief(one) for one in case.reasons), className="strong slim"),
            plain(case.response_preview or case.prompt_preview, "wrap clamp muted"),
            case.variant or case.served_entity or formats.MISSING,
            formats.ago(case.request_time, now),
            f"{case.labeled} of {case.wanted}",
            case.annotator or formats.MISSING,
        ]
        for case in cases
    ]
    return table(
        ["Case", "State", "Flagged by", "Answer", "Variant", "Recorded", "Labels", "Annotator"],
        rows,
        numeric_from=99,
        caption="Cases",
    )
