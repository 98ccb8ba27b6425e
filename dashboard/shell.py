"""The frame around every page: navigation, filters that live in the address bar, colour scheme, problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import dash_mantine_components as dmc
from dash import Input, Output, State, dcc, html

from dashboard import firing_badge
from dashboard.callbacks import Callbacks
from dashboard.elements import Element, icon, problem_slot
from dashboard.services import ConsoleServices
from dashboard.theme import MANTINE_THEME
from dashboard.view import DEFAULT_RANGE, RANGES


@dataclass(frozen=True, slots=True)
class NavigationItem:
    """A page in the navigation."""

    path: str
    title: str
    icon: str


NAVIGATION: tuple[NavigationItem, ...] = (
    NavigationItem("/", "Overview", "overview"),
    NavigationItem("/requests", "Requests", "requests"),
    NavigationItem("/experiments", "Experiments", "experiments"),
    NavigationItem("/quality", "Quality", "quality"),
    NavigationItem("/relabel", "Relabel", "relabel"),
)


def layout(services: ConsoleServices) -> Element:
    """The whole document; the router fills ``page``."""
    names = [endpoint.name for endpoint in services.endpoints]
    settings = {
        "endpoints": {name: list(services.arms(name)) for name in names},
        "order": names,
        "ranges": {key: label for key, (label, _) in RANGES.items()},
        "range": DEFAULT_RANGE,
    }
    return dmc.MantineProvider(
        [
            dcc.Location(id="url", refresh="callback-nav"),
            dcc.Store(id="settings", data=settings),
            dcc.Store(id="view"),
            dcc.Store(id="scheme"),
            dcc.Store(id="request-id"),
            dcc.Store(id="experiment-name"),
            html.A("Skip to the content", href="#page", className="skip"),
            html.Div(
                [
                    _sidebar(),
                    html.Div(
                        [
                            _filters(names),
                            firing_badge.layout(),
                            problem_slot("shell-problem"),
                            html.Main(id="page", tabIndex=-1),
                        ],
                        className="content",
                    ),
                ],
                className="shell",
            ),
        ],
        theme=MANTINE_THEME,
        defaultColorScheme="auto",
        id="provider",
    )


def _sidebar() -> Element:
    return html.Aside(
        [
            dcc.Link(
                [
                    html.Span(className="brand-mark", **{"aria-hidden": "true"}),
                    html.Span("servelens", className="brand-name"),
                ],
                href="/",
                className="brand",
                id="brand",
            ),
            html.Nav(
                [
                    dcc.Link(
                        [
                            icon(item.icon),
                            html.Span(item.title, className="nav-title"),
                            *([firing_badge.badge_slot()] if item.path == firing_badge.PATH else []),
                        ],
                        href=item.path,
                        id={"type": "nav", "path": item.path},
                        className="nav-link",
                    )
                    for item in NAVIGATION
                ],
                className="nav",
                **{"aria-label": "Pages"},
            ),
            html.Div(
                [
                    html.Button(
                        [icon("scheme"), html.Span("Light or dark", className="nav-title")],
                        id="toggle-scheme",
                        className="nav-link scheme-button",
                        title="Switch between light and dark",
                        **{"aria-label": "Switch between light and dark"},
                    ),
                    html.Div(_version(), className="version"),
                ],
                className="sidebar-foot",
            ),
        ],
        className="sidebar",
    )


def _filters(endpoints: Sequence[str]) -> Element:
    return html.Div(
        [
            dmc.Select(
                id="endpoint",
                data=list(endpoints),
                value=endpoints[0] if endpoints else None,
                allowDeselect=False,
                searchable=len(endpoints) > 8,
                leftSection=icon("endpoint"),
                placeholder="No endpoint",
                className="filter filter-endpoint",
                comboboxProps={"shadow": "md"},
                **{"aria-label": "Endpoint"},
            ),
            dmc.Select(
                id="range",
                data=[{"value": key, "label": label} for key, (label, _) in RANGES.items()],
                value=DEFAULT_RANGE,
                allowDeselect=False,
                leftSection=icon("clock"),
                className="filter filter-range",
                comboboxProps={"shadow": "md"},
                **{"aria-label": "Time range"},
            ),
            dmc.MultiSelect(
                id="variants",
                data=[],
                value=[],
                placeholder="All variants",
                clearable=True,
                leftSection=icon("variant"),
                className="filter filter-variants",
                comboboxProps={"shadow": "md"},
                **{"aria-label": "Variants"},
            ),
            html.Button(
                [icon("link"), html.Span("Copy link", id="share-label")],
                id="share",
                className="button button-quiet share",
                title="Copy a link to exactly this view, with its times fixed",
            ),
        ],
        className="filters",
        role="search",
        **{"aria-label": "Filters"},
    )


def _version() -> str:
    try:
        return f"servelens {version('servelens')}"
    except PackageNotFoundError:
        return "servelens"


def register(callbacks: Callbacks) -> None:
    """The callbacks of the frame; all of them run in the browser."""
    callbacks.browser(
        "view",
        [
            Output("url", "search"),
            Output("view", "data"),
            Output("endpoint", "value"),
            Output("range", "value"),
            Output("range", "data"),
            Output("variants", "value"),
            Output("variants", "data"),
        ],
        [
            Input("url", "search"),
            Input("endpoint", "value"),
            Input("range", "value"),
            Input("variants", "value"),
        ],
        [State("settings", "data"), State("view", "data")],
    )
    callbacks.browser(
        "navigation",
        [
            *(Output({"type": "nav", "path": item.path}, "href") for item in NAVIGATION),
            *(Output({"type": "nav", "path": item.path}, "className") for item in NAVIGATION),
        ],
        [Input("url", "pathname"), Input("view", "data")],
        [State("url", "search")],
    )
    callbacks.browser("scheme", Output("scheme", "data"), [Input("toggle-scheme", "n_clicks")])
    callbacks.browser(
        "share",
        Output("share-label", "children"),
        [Input("share", "n_clicks")],
        [State("view", "data")],
        initial=False,
    )
