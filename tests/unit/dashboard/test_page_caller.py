"""A callback knows whose key the page was asked for with, in the thread that it works in."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from dash import Dash, Input, Output, html
from fastapi import FastAPI

from dashboard.callbacks import Callbacks
from dashboard.page_caller import PageCaller, page_caller, page_key
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.keys.console_access import ConsoleAccess
from servelens.keys.store import KeyStore

BODY = {
    "output": "..out.children...problem.children..",
    "outputs": [{"id": "out", "property": "children"}, {"id": "problem", "property": "children"}],
    "inputs": [{"id": "in", "property": "children", "value": 1}],
    "changedPropIds": ["in.children"],
}


async def test_a_callback_knows_the_caller(tmp_path: Path) -> None:
    clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
    database = Database(f"sqlite:///{tmp_path / 'servelens.db'}")
    database.create_tables()
    store = KeyStore(database, clock)
    app = FastAPI()
    dash = Dash(
        __name__, server=app, backend="fastapi", use_pages=False, pages_folder="", add_log_handler=False
    )
    dash.layout = html.Div([html.Div(id="out"), html.Div(id="in"), html.Div(id="problem")])
    Callbacks(dash).server(
        lambda _value: repr((page_caller(), page_key())),
        [Output("out", "children")],
        [Input("in", "children")],
        problems=Output("problem", "children"),
    )
    app.add_middleware(PageCaller)
    door = ConsoleAccess(app, store.load, clock)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://console") as client:

        async def known(**headers: str) -> Any:
            answer = await client.post("/_dash-update-component", json=BODY, headers=headers)
            return answer.json()["response"]["out"]["children"]

        assert await known() == "(None, None)"
        _, secret = store.create("ann", ["annotate"])
        clock.advance(1)
        expected = repr(("ann", secret.encode()))
        assert await known(authorization=f"Bearer {secret}") == expected
        password = base64.b64encode(f"anybody:{secret}".encode()).decode()
        assert await known(authorization=f"Basic {password}") == expected
    assert (page_caller(), page_key()) == (None, None)
    database.dispose()
