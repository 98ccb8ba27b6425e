"""dashboard.problems: errors of our own as problem details."""

from __future__ import annotations

import httpx
from fastapi import FastAPI

from dashboard.problems import install
from servelens.errors import Conflict


class _Stale(Conflict):
    pass


async def test_a_private_kind_of_error_is_shown_as_what_it_is() -> None:
    app = FastAPI()
    install(app)

    @app.get("/")
    def stale() -> None:
        raise _Stale("it was changed", field="If-Match", fix="Read it again.")

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://console") as client:
        answer = await client.get("/")
    assert answer.status_code == 409
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert (answer.json()["title"], answer.json()["field"]) == ("Conflict", "If-Match")
