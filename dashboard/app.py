"""The console as one ASGI app: FastAPI for the HTTP API, Dash for the pages, mounted on the same server.

Everything a page needs is served from here; nothing is fetched from another host.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dash import Dash, Input, Output
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from dashboard import firing_badge, health, problems, reports, shell
from dashboard.callbacks import Callbacks
from dashboard.console import Console
from dashboard.elements import Element
from dashboard.page_caller import PageCaller
from dashboard.pages import experiments, missing, overview, quality, relabel, requests
from dashboard.relabel_api import relabel_routers
from dashboard.security import NoCrossSiteWrites, SecurityHeaders, content_security_policy
from dashboard.services import ConsoleServices
from evaluators.alerts import api as alerts_api
from evaluators.drift import api as drift_api
from evaluators.runs import api as evaluations_api
from evaluators.runs.evaluation_store import EvaluationStore
from experiments import api as experiments_api
from servelens.errors import Missing

_ASSETS = Path(__file__).with_name("assets")
_INDEX = """<!DOCTYPE html>
<html lang="en">
  <head>
    {%metas%}
    <title>servelens</title>
    <link rel="icon" type="image/svg+xml" href="/assets/favicon.svg">
    {%css%}
  </head>
  <body>
    {%app_entry%}
    <footer>
      {%config%}
      {%scripts%}
      {%renderer%}
    </footer>
  </body>
</html>
"""
_PAGES: dict[str, Any] = {
    "/": overview,
    "/requests": requests,
    "/experiments": experiments,
    "/quality": quality,
    "/relabel": relabel,
}


class PageAddresses:
    """ASGI middleware that answers the address of every page with the one document that Dash has.

    Dash would do so by a route that it adds when the server starts, to the app that was created last in the process.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "GET" and scope["path"].rstrip("/") in _PAGES:
            scope = {**scope, "path": "/", "raw_path": b"/"}
        await self._app(scope, receive, send)


def create_console(services: ConsoleServices) -> FastAPI:
    """The console; run it with uvicorn, or any other ASGI server, in one process."""
    console = Console(services)
    app = FastAPI(title="servelens console", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    problems.install(app)
    app.include_router(health.router(services.database, console.reader.cache, console.case_counts))
    app.include_router(reports.router(console.reports))
    app.include_router(
        experiments_api.router(
            services.experiment_store, console.experiments.analyzer, services.experiment_control
        )
    )
    for router in relabel_routers(console):
        app.include_router(router)
    if services.drift_reports is not None:
        app.include_router(drift_api.router(services.drift_reports))
    if services.parse_evaluation is not None:
        store = EvaluationStore(services.database, services.clock)
        app.include_router(evaluations_api.router(store, services.run_history, services.parse_evaluation))
    app.include_router(
        alerts_api.router(
            console.alerts,
            console.silences,
            services.alert_rules,
            services.clock,
        )
    )

    @app.api_route(
        "/api/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE"], include_in_schema=False
    )
    def unknown(path: str) -> None:
        """An address of the API that does not exist is an error, not a page."""
        raise Missing("there is no such address in the API", field=path[:200])

    dash = Dash(
        __name__,
        server=app,
        backend="fastapi",
        assets_folder=str(_ASSETS),
        use_pages=False,
        pages_folder="",
        serve_locally=True,
        suppress_callback_exceptions=True,
        title="servelens",
        update_title=None,
        index_string=_INDEX,
        add_log_handler=False,
        meta_tags=[
            {"name": "viewport", "content": "width=device-width, initial-scale=1, viewport-fit=cover"}
        ],
    )
    dash.layout = lambda: shell.layout(services)
    callbacks = Callbacks(dash)
    shell.register(callbacks)
    firing_badge.register(callbacks, console)
    for page in _PAGES.values():
        page.register(callbacks, console)

    def show(path: str | None) -> Element:
        page = _PAGES.get((path or "/").rstrip("/") or "/", missing)
        return page.layout(console)

    callbacks.server(
        show,
        [Output("page", "children")],
        [Input("url", "pathname")],
        problems=Output("shell-problem", "children"),
    )
    # Dash collects its assets on the first request for "/"; a first visit by a deep link would find none of them.
    dash._setup_server()
    app.add_middleware(PageAddresses)
    app.add_middleware(PageCaller)
    app.add_middleware(NoCrossSiteWrites)
    app.add_middleware(SecurityHeaders, policy=content_security_policy(dash.csp_hashes()))
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(services.allowed_hosts))
    return app
