"""Overview: is the endpoint well, right now, and is one variant different from another?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html
from dash.exceptions import PreventUpdate

from dashboard import figures, formats
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import (
    Element,
    badge,
    card,
    code_block,
    empty,
    graph,
    icon,
    legend,
    page_head,
    problem_slot,
    table,
    tile,
)
from dashboard.services import EndpointSummary
from dashboard.traffic_queries import Totals, Traffic
from dashboard.view import View

_GRAPHS = (
    "overview-requests",
    "overview-latency",
    "overview-error-rate",
    "overview-errors",
    "overview-first-token",
    "overview-tokens",
)


def layout(console: Console) -> Element:
    """The page before its numbers."""
    quantiles = dmc.SegmentedControl(
        id="overview-quantile",
        data=[{"value": value, "label": value} for value in ("p50", "p95", "p99")],
        value="p95",
        size="xs",
        **{"aria-label": "Quantile of latency"},
    )
    return html.Div(
        [
            dcc.Interval(id="overview-tick", interval=int(console.services.refresh_s * 1000)),
            page_head(
                "Overview",
                "Traffic, latency, errors and tokens. Drag over a chart to look at that time.",
                [html.Div(id="overview-legend"), html.Div(id="overview-live", className="live")],
            ),
            problem_slot("overview-problem"),
            html.Div(id="overview-empty"),
            html.Div(
                [
                    html.Div(id="overview-notice"),
                    html.Div(id="overview-tiles", className="tiles"),
                    card("By variant", html.Div(id="overview-variants")),
                    html.Div(
                        [
                            card(
                                "Requests",
                                graph("overview-requests", 220, "Requests over time by variant"),
                                note="stacked",
                            ),
                            card(
                                "Latency",
                                graph("overview-latency", 220, "Latency over time by variant"),
                                note="calls that succeeded",
                                actions=[quantiles],
                            ),
                            card(
                                "Error rate",
                                graph(
                                    "overview-error-rate",
                                    220,
                                    "Share of failed requests over time by variant",
                                ),
                                note="share of calls that failed",
                            ),
                            card(
                                "Errors by type",
                                graph("overview-errors", 220, "Failed requests over time by type of error"),
                                note="calls that failed",
                            ),
                            card(
                                "Time to first token",
                                graph(
                                    "overview-first-token", 220, "Time to first token over time by variant"
                                ),
                                note="streams, same quantile as latency",
                            ),
                            card(
                                "Output tokens",
                                graph("overview-tokens", 220, "Output tokens per second by variant"),
                                note="per second, averaged over each bin",
                            ),
                        ],
                        className="grid-charts",
                    ),
                ],
                id="overview-body",
                className="stack",
                hidden=True,
            ),
        ]
    )


def register(callbacks: Callbacks, console: Console) -> None:
    """The callbacks of the page."""

    def update(
        data: Mapping[str, Any] | None, _tick: int | None, scheme: str | None, quantile: figures.Quantile
    ) -> tuple[Any, ...]:
        if data is None or scheme is None:
            raise PreventUpdate
        view = console.view(data)
        if not view.endpoint:
            return _nothing(_no_endpoint())
        traffic = console.traffic.traffic(view)
        if not traffic.total.requests:
            return _nothing(_no_traffic(console, view))
        arms = console.services.arms(view.endpoint)
        colours = figures.present_colours(traffic, arms, scheme)
        return (
            None,
            False,
            _notice(console, view),
            _tiles(traffic, view),
            legend(colours),
            f"Live · last record {formats.ago(traffic.newest, console.services.clock.now())}"
            if view.relative
            else "Fixed time",
            "live on" if view.relative else "live",
            _variants(traffic, colours),
            figures.requests(traffic, arms, scheme, view.zone),
            figures.latency(traffic, arms, scheme, view.zone, quantile),
            figures.error_rate(traffic, arms, scheme, view.zone),
            figures.errors(traffic, scheme, view.zone),
            figures.first_token(traffic, arms, scheme, view.zone, quantile),
            figures.tokens(traffic, arms, scheme, view.zone),
        )

    callbacks.server(
        update,
        [
            Output("overview-empty", "children"),
            Output("overview-body", "hidden"),
            Output("overview-notice", "children"),
            Output("overview-tiles", "children"),
            Output("overview-legend", "children"),
            Output("overview-live", "children"),
            Output("overview-live", "className"),
            Output("overview-variants", "children"),
            *(Output(name, "figure") for name in _GRAPHS),
        ],
        [
            Input("view", "data"),
            Input("overview-tick", "n_intervals"),
            Input("scheme", "data"),
            Input("overview-quantile", "value"),
        ],
        problems=Output("overview-problem", "children"),
    )
    callbacks.browser(
        "zoom",
        Output("url", "search", allow_duplicate=True),
        [Input(name, "relayoutData") for name in _GRAPHS],
        [State("url", "search")],
        initial=False,
    )


def _nothing(what: Element) -> tuple[Any, ...]:
    return (what, True, None, [], None, "", "live", None, *({} for _ in _GRAPHS))


def _tiles(traffic: Traffic, view: View) -> list[Element]:
    now, before = traffic.total, traffic.previous
    seconds = view.window.length.total_seconds()
    rate = now.error_rate
    return [
        tile("Requests", formats.count(now.requests), _change(now.requests, before.requests)),
        tile(
            "Error rate",
            formats.percent(rate),
            _change(rate, before.error_rate, worse="up"),
            tone="bad" if rate is not None and rate >= 0.05 else "",
            hint="Calls with an error status, or that broke off after a good one",
        ),
        tile("Latency p50", formats.milliseconds(now.p50), _change(now.p50, before.p50, worse="up")),
        tile("Latency p95", formats.milliseconds(now.p95), _change(now.p95, before.p95, worse="up")),
        tile("Latency p99", formats.milliseconds(now.p99), _change(now.p99, before.p99, worse="up")),
        tile(
            "First token p50",
            formats.milliseconds(now.first_token_p50),
            _change(now.first_token_p50, before.first_token_p50, worse="up")
            if now.first_token_p50 is not None
            else "no streams",
            hint="From the request to the first token of a stream",
        ),
        tile(
            "Input tokens",
            formats.count(now.input_tokens),
            f"{formats.significant(now.input_tokens / seconds)} per second",
        ),
        tile(
            "Output tokens",
            formats.count(now.output_tokens),
            f"{formats.significant(now.output_tokens / seconds)} per second",
        ),
    ]


def _change(now: float | None, before: float | None, *, worse: str = "") -> Element:
    """How a number moved against the window before; coloured only when the move is large and has a bad side."""
    if now is None or not before:
        return html.Span("no earlier data")
    share = now / before - 1
    if abs(share) < 0.005:
        return html.Span("unchanged")
    up = share > 0
    notable = bool(worse) and abs(share) >= 0.1
    tone = ("up-bad" if (worse == "up") == up else "down-good") if notable else ""
    return html.Span([html.Span(formats.lift(share), className=tone), " vs before"])


def _variants(traffic: Traffic, colours: Mapping[str, str]) -> Element:
    total = traffic.total.requests
    rows = []
    for arm, colour in colours.items():
        totals = traffic.per_arm.get(arm, Totals())
        answered = max(1, totals.requests - totals.errors)
        rows.append(
            [
                html.Span([html.I(style={"background": colour}), arm], className="swatch"),
                formats.count(totals.requests),
                formats.percent(totals.requests / total, 1),
                formats.percent(totals.error_rate),
                formats.milliseconds(totals.p50),
                formats.milliseconds(totals.p95),
                formats.milliseconds(totals.p99),
                formats.milliseconds(totals.first_token_p50),
                formats.significant(totals.output_tokens / answered),
            ]
        )
    head = ["Variant", "Requests", "Share", "Errors", "p50", "p95", "p99", "First token", "Tokens / answer"]
    return table(head, rows, caption="Traffic by variant")


def _notice(console: Console, view: View) -> Element | None:
    lost = console.unrouted(view.window)
    if not lost:
        return None
    words = "request reached no endpoint" if lost == 1 else "requests reached no endpoint"
    return html.Div(
        [
            icon("alert"),
            html.Div(
                [
                    html.Strong(f"{lost:,} {words} in this time: "),
                    "an unknown model, or a body that is not JSON. ",
                    dcc.Link("Look at them", href="/requests?endpoint=_unrouted"),
                ]
            ),
        ],
        className="hint",
    )


def _no_endpoint() -> Element:
    return empty(
        "endpoint",
        "No endpoint is configured",
        html.P(["Add one under ", html.Code("endpoints"), " in servelens.yaml, then restart the console."]),
    )


def _no_traffic(console: Console, view: View) -> Element:
    known = console.traffic.exists(view.endpoint)
    if known:
        wider = [
            dcc.Link(label, href=f"/?endpoint={view.endpoint}&range={key}", className="button")
            for key, label in (("24h", "Last 24 hours"), ("7d", "Last 7 days"), ("30d", "Last 30 days"))
        ]
        return empty(
            "clock",
            f"No traffic in {view.range_label}",
            html.P("The endpoint has records at another time."),
            wider,
        )
    summary = next(
        (one for one in console.services.endpoints if one.name == view.endpoint),
        EndpointSummary(view.endpoint),
    )
    entities = [badge(entity.name, "accent") for entity in summary.entities]
    call = (
        "from openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{console.services.proxy_url}/v1", api_key="unused")\n'
        "client.chat.completions.create(\n"
        f'    model="{view.endpoint}",\n'
        '    messages=[{"role": "user", "content": "Hello!"}],\n'
        ")"
    )
    return empty(
        "overview",
        f"Waiting for the first request to {view.endpoint}",
        [
            html.P("Point a client at the proxy. A request shows here within seconds of its answer."),
            code_block(call),
            html.Div(["Answered by ", *entities], className="legend") if entities else None,
        ],
    )
