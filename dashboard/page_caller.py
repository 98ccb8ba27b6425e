"""Who uses a page: the name of their API key, and the key itself where the console calls the proxy for them.

Dash's callbacks are given what components hold, and nothing of the request. This keeps it for as long as the request lasts,
also in the thread that a callback works in; nothing of it goes to the browser.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from servelens.api_caller import NOBODY, api_key, requester

_REQUEST: Final[ContextVar[Request | None]] = ContextVar("servelens_page_request", default=None)


class PageCaller:
    """ASGI middleware; it stands behind the console's door, which says whose key it is."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        token = _REQUEST.set(Request(scope))
        try:
            await self._app(scope, receive, send)
        finally:
            _REQUEST.reset(token)


def page_caller() -> str | None:
    """The name of the API key that the page was asked for with; ``None`` while there are no keys."""
    request = _REQUEST.get()
    name = NOBODY if request is None else requester(request)
    return None if name == NOBODY else name


def page_key() -> bytes | None:
    """The API key itself, as it was sent."""
    request = _REQUEST.get()
    return None if request is None else api_key(request)
