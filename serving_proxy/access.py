"""Access to what FastAPI serves: a dependency that lets only holders of a scope in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import HTTPException, Request

from servelens.clock import Clock
from serving_proxy.authentication import Keys, Requester, Scope, authenticate
from serving_proxy.failure import Failure


def require(
    scope: Scope, keys: Callable[[], Keys], clock: Clock, *or_else: Scope
) -> Callable[[Request], Awaitable[Requester | None]]:
    """A dependency that gives the requester, ``None`` when no keys are in use; ``keys`` gives the current ones. One
    scope is enough: ``scope``, or one of ``or_else``.

    Raises HTTPException 401 (with ``www-authenticate``) or 403, which the application words in its own
    error shape.
    """

    async def requester(request: Request) -> Requester | None:
        fields, now_us = dict(request.headers.raw), clock.now_us()
        outcome = authenticate(keys(), fields, now_us, scope)
        for other in or_else:
            if not isinstance(outcome, Failure) or outcome.status != 403:
                break
            again = authenticate(keys(), fields, now_us, other)
            outcome = outcome if isinstance(again, Failure) else again
        if isinstance(outcome, Failure):
            headers = {"www-authenticate": "Bearer"} if outcome.status == 401 else None
            raise HTTPException(outcome.status, outcome.message, headers)
        return outcome

    return requester
