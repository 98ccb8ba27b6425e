"""HTTP API of the keys: Databricks' token API, with our scopes.

``/api/2.0/token/create``, ``/list`` and ``/delete`` as databricks-sdk's ``tokens`` calls them
(https://docs.databricks.com/api/workspace/tokens); a token's comment is the key's name. Errors are
raised as :class:`~servelens.errors.ServelensError`.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from servelens.clock import Clock, datetime_us
from servelens.keys.store import ApiKey, KeyStore
from serving_proxy.access import require
from serving_proxy.authentication import Keys, Requester


class CreateBody(BaseModel):
    """A new key. Without ``comment`` it gets a name of its own, without ``scopes`` it may only invoke."""

    comment: str | None = None
    lifetime_seconds: int | None = Field(None, le=100 * 366 * 86_400)
    scopes: list[str] | None = None


class DeleteBody(BaseModel):
    """The key to revoke, by its id."""

    token_id: str


def router(
    store: KeyStore,
    keys: Callable[[], Keys],
    clock: Clock,
    *,
    route_class: type[APIRoute] = APIRoute,
) -> APIRouter:
    """The routes; each needs the scope ``admin``, once there are keys. Handlers run beside the event loop.
    ``route_class`` may word the errors."""
    admin = Depends(require("admin", keys, clock))
    routes = APIRouter(prefix="/api/2.0/token", dependencies=[admin], route_class=route_class)

    @routes.post("/create")
    def create(body: CreateBody, requester: Requester | None = admin) -> dict[str, Any]:
        key, secret = store.create(
            body.comment or f"key-{secrets.token_hex(4)}",
            body.scopes or ["invoke"],
            created_by=requester.name if requester else None,
            lifetime=None if body.lifetime_seconds is None else timedelta(seconds=body.lifetime_seconds),
        )
        return {"token_value": secret, "token_info": _info(key)}

    @routes.get("/list")
    def list_live() -> dict[str, Any]:
        return {"token_infos": [_info(key) for key in store.live()]}

    @routes.post("/delete")
    def delete(body: DeleteBody) -> dict[str, Any]:
        store.revoke(body.token_id)
        return {}

    return routes


def _info(key: ApiKey) -> dict[str, Any]:
    return {
        "token_id": key.id,
        "comment": key.name,
        "creation_time": _milliseconds(key.created_at),
        "expiry_time": -1 if key.expires_at is None else _milliseconds(key.expires_at),
        "scopes": list(key.scopes),
        "prefix": key.prefix,
        "created_by": key.created_by,
    }


def _milliseconds(moment: datetime) -> int:
    return datetime_us(moment) // 1000
