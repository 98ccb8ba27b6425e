"""The console's door: once there are keys, its pages and its HTTP API need one with the scope ``annotate`` or ``admin``.

Programs send the key as they do to the proxy. A browser asks its user for a name and a password (RFC 7617): the key is
the password, and any name will do. That is no account system, only the same keys for people; as with every key,
it is as secret as the connection, so put TLS in front.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Final

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from servelens.clock import Clock
from servelens.errors import ServelensError
from servelens.keys.password import accept_password
from serving_proxy.authentication import Keys, Requester, authenticate
from serving_proxy.authentication import Scope as KeyScope
from serving_proxy.failure import Failure

logger = logging.getLogger(__name__)

_OPEN: Final = frozenset(("/health/live", "/health/ready"))
_REFRESH_S: Final = 0.5


class ConsoleAccess:
    """ASGI middleware. ``keys`` gives the current ones and may ask the database: it is called in a thread, at most
    twice a second; while it fails the old ones stay. What is behind it finds the name of the key in
    ``request.state.requester``, ``None`` while there are no keys.
    """

    def __init__(self, app: ASGIApp, keys: Callable[[], Keys], clock: Clock) -> None:
        self._app = app
        self._load = keys
        self._clock = clock
        self._keys = keys()
        self._fresh_until = clock.monotonic() + _REFRESH_S
        self._refreshing = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in _OPEN:
            await self._refresh()
            outcome = self._requester(scope)
            if isinstance(outcome, Failure):
                await _refusal(outcome)(scope, receive, send)
                return
            name = outcome.name if outcome else None
            scope = {**scope, "state": {**scope.get("state", {}), "requester": name}}
        await self._app(scope, receive, send)

    async def _refresh(self) -> None:
        if self._clock.monotonic() < self._fresh_until:
            return
        async with self._refreshing:
            if self._clock.monotonic() < self._fresh_until:
                return
            try:
                self._keys = await asyncio.to_thread(self._load)
            except ServelensError as error:
                logger.warning("API keys not refreshed, the old ones stay: %s", error)
            self._fresh_until = self._clock.monotonic() + _REFRESH_S

    def _requester(self, scope: Scope) -> Requester | Failure | None:
        fields = dict(scope["headers"])
        accept_password(fields)
        now_us = self._clock.now_us()
        as_admin = authenticate(self._keys, fields, now_us, "admin")
        if not isinstance(as_admin, Failure) or as_admin.status == 401:
            return as_admin
        return authenticate(self._keys, fields, now_us, needed(scope["method"], scope["path"]))


def needed(method: str, path: str) -> KeyScope:
    """What a call of the console needs: changes through the API are an administrator's, but for relabeling; and there what
    annotators are asked, and labels that other tools give in their names.
    """
    if method in ("GET", "HEAD", "OPTIONS"):
        return "annotate"
    if path.startswith("/api/relabel/schemas/"):
        only_checks = method == "POST" and path.endswith("/check")
        return "annotate" if only_checks else "admin"
    if path.startswith("/api/relabel/interchange/"):
        return "admin"
    is_api = path.startswith("/api/") and not path.startswith("/api/relabel/")
    return "admin" if is_api else "annotate"


def _refusal(failure: Failure) -> ASGIApp:
    problem = {
        "type": "about:blank",
        "title": HTTPStatus(failure.status).phrase,
        "status": failure.status,
        "detail": failure.message,
    }
    headers = (
        {"www-authenticate": 'Basic realm="servelens: any name, the API key as password", Bearer'}
        if failure.status == 401
        else None
    )
    return JSONResponse(problem, failure.status, headers, "application/problem+json")
