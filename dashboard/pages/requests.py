"""Requests: every recorded invocation in a grid that filters, sorts and searches on the server; one opens in a panel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from collector.catalog import UNROUTED
from dashboard import formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element, empty, icon, page_head, problem_slot
from dashboard.pages import request_panel, request_queueing
from dashboard.queries import ARM
from dashboard.request_queries import MOST_ROWS, score_column

_PAGE = 50


def layout(console: Console) -> Element:
    """The page before its rows."""
    return html.Div(
        [
            page_head(
                "Requests",
                "Every recorded call in the chosen time. Select one to read the conversation.",
                [html.Div(id="requests-count", className="muted")],
            ),
            problem_slot("requests-problem"),
            problem_slot("requests-columns-problem"),
            html.Div(
                [
                    dmc.TextInput(
                        id="requests-search",
                        placeholder="Search prompts, answers, ids, users",
                        leftSection=icon("search"),
                        debounce=350,
                        className="grow",
                        **{"aria-label": "Search"},
                    ),
                    dmc.SegmentedControl(
                        id="requests-outcome",
                        data=[
                            {"value": "all", "label": "All"},
                            {"value": "ok", "label": "Answered"},
                            {"value": "failed", "label": "Failed"},
                        ],
                        value="all",
                    ),
                    html.Button([icon("refresh"), "Refresh"], id="requests-refresh", className="button"),
                ],
                className="toolbar",
            ),
            html.Div(id="requests-empty"),
            html.Div(
                dag.AgGrid(
                    id="requests-grid",
                    rowModelType="infinite",
                    columnDefs=_columns(()),
                    defaultColDef={
                        "sortable": True,
                        "resizable": True,
                        "filter": True,
                        "suppressHeaderMenuButton": False,
                        "floatingFilter": False,
                        "minWidth": 84,
                    },
                    dashGridOptions={
                        "theme": {"function": "servelensTheme(themeQuartz)"},
                        "pagination": True,
                        "paginationPageSize": _PAGE,
                        "paginationPageSizeSelector": [25, 50, 100],
                        "cacheBlockSize": 100,
                        "maxBlocksInCache": 20,
                        "rowHeight": 40,
                        "headerHeight": 40,
                        "rowSelection": {
                            "mode": "singleRow",
                            "checkboxes": False,
                            "enableClickSelection": True,
                        },
                        "suppressCellFocus": False,
                        "animateRows": False,
                        "enableCellTextSelection": False,
                        "ensureDomOrder": True,
                    },
                    getRowId="params.data.databricks_request_id",
                    className="grid",
                    style={"height": "100%", "width": "100%"},
                ),
                id="requests-frame",
                className="grid-frame",
            ),
            dmc.Drawer(
                id="request-drawer",
                position="right",
                size="min(720px, 100vw)",
                opened=False,
                title="Request",
                padding="lg",
                children=[
                    problem_slot("request-problem"),
                    request_queueing.layout(),
                    html.Div(id="request-content"),
                ],
                closeButtonProps={"aria-label": "Close"},
            ),
        ],
        className="page-requests",
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the page."""

    def rows(
        request: Mapping[str, Any] | None, data: Mapping[str, Any] | None, search: str | None, outcome: str
    ) -> Any:
        if request is None or data is None:
            raise PreventUpdate
        view = console.view(data)
        listing = console.requests.listing(
            view,
            search=search or "",
            outcome=outcome,
            start=int(request.get("startRow") or 0),
            end=int(request.get("endRow") or 100),
            sort=request.get("sortModel") or (),
            filters=request.get("filterModel") or {},
        )
        shown = [_shown(row, view.zone) for row in listing.rows]
        words = formats.plural(listing.total, "request")
        if listing.cut_off:
            words = f"the newest {MOST_ROWS:,} requests"
        return {"rowData": shown, "rowCount": listing.total}, words

    callbacks.server(
        rows,
        [Output("requests-grid", "getRowsResponse"), Output("requests-count", "children")],
        [Input("requests-grid", "getRowsRequest")],
        [State("view", "data"), State("requests-search", "value"), State("requests-outcome", "value")],
        problems=Output("requests-problem", "children"),
        initial=False,
    )

    def columns(data: Mapping[str, Any] | None) -> Any:
        if data is None:
            raise PreventUpdate
        view = console.view(data)
        if view.endpoint != UNROUTED and not console.traffic.exists(view.endpoint):
            nothing = empty(
                "requests",
                "No request has been recorded yet",
                html.P(
                    [
                        "Requests show here as soon as the proxy has answered them. ",
                        dcc.Link("How to send one", href="/"),
                    ]
                ),
            )
            return _columns(()), nothing, True
        return _columns(console.requests.evaluators(view)), None, False

    callbacks.server(
        columns,
        [
            Output("requests-grid", "columnDefs"),
            Output("requests-empty", "children"),
            Output("requests-frame", "hidden"),
        ],
        [Input("view", "data")],
        problems=Output("requests-columns-problem", "children"),
    )
    callbacks.browser(
        "refetch",
        Output("requests-grid", "id"),
        [
            Input("view", "data"),
            Input("requests-search", "value"),
            Input("requests-outcome", "value"),
            Input("requests-refresh", "n_clicks"),
        ],
        initial=False,
    )
    callbacks.browser(
        "openRequest",
        Output("url", "search", allow_duplicate=True),
        [Input("requests-grid", "selectedRows")],
        [State("url", "search")],
        initial=False,
    )
    callbacks.browser("requestDrawer", Output("request-drawer", "opened"), [Input("url", "search")])
    callbacks.browser(
        "closeRequest",
        Output("url", "search", allow_duplicate=True),
        [Input("request-drawer", "opened")],
        [State("url", "search")],
        initial=False,
    )
    request_panel.register(callbacks, console)
    request_queueing.register(callbacks, console)


def _columns(evaluators: tuple[str, ...]) -> list[dict[str, Any]]:
    number = {"type": "rightAligned", "filter": "agNumberColumnFilter", "cellClass": "number-cell"}
    text = {"filter": "agTextColumnFilter"}
    return [
        {
            "field": "request_time",
            "headerName": "Time",
            "valueFormatter": {"function": "params.data ? params.data.time : ''"},
            "filter": False,
            "width": 156,
            "sort": "desc",
        },
        {
            "field": "status_code",
            "headerName": "Status",
            "filter": "agNumberColumnFilter",
            "width": 92,
            "cellClassRules": {"cell-bad": "params.data && params.data.failed"},
            "cellClass": "status-cell",
        },
        {"field": ARM, "headerName": "Variant", **text, "width": 116},
        {
            "field": "prompt",
            "headerName": "Prompt",
            **text,
            "flex": 3,
            "minWidth": 180,
            "sortable": False,
            "cellClass": "text-cell",
        },
        {
            "field": "answer",
            "headerName": "Answer",
            **text,
            "flex": 3,
            "minWidth": 180,
            "sortable": False,
            "cellClass": "text-cell",
        },
        {
            "field": "execution_duration_ms",
            "headerName": "Duration",
            **number,
            "width": 108,
            "valueFormatter": {"function": "params.data ? params.data.duration : ''"},
        },
        {
            "field": "time_to_first_token_ms",
            "headerName": "First token",
            **number,
            "width": 120,
            "valueFormatter": {"function": "params.data ? params.data.first_token : ''"},
        },
        *(
            {
                "field": score_column(name),
                "headerName": name.capitalize(),
                **number,
                "width": 112,
                "valueFormatter": {"function": "servelensNumber(params.value)"},
            }
            for name in evaluators
        ),
        {"field": "output_tokens", "headerName": "Tokens", **number, "width": 96},
        {"field": "error_type", "headerName": "Error", **text, "width": 150},
        {"field": "unit", "headerName": "Unit", **text, "width": 120},
    ]


def _shown(row: dict[str, Any], zone: str) -> dict[str, Any]:
    moment = row["request_time"]
    return {
        **row,
        "request_time": moment.isoformat() if moment else None,
        "time": formats.moment(moment, zone),
        "duration": formats.milliseconds(row["execution_duration_ms"]),
        "first_token": formats.milliseconds(row["time_to_first_token_ms"])
        if row["time_to_first_token_ms"]
        else "",
    }
