"""HTTP: where the alerts stand, their incidents, and silences, under ``/api/alerts``.

Errors are :class:`~servelens.errors.ServelensError`; the application that includes the router turns them into
RFC 9457 problem details. Changes need an administrator's key where there are keys; who made a silence is the name of
that key (``request.state.requester``), or ``console`` while there are none. Handlers block on the database, so they
run in worker threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from evaluators.alerts.overview import AlertOverview
from evaluators.alerts.rule import AlertRule
from evaluators.alerts.silences import Silences
from servelens.api_caller import Caller
from servelens.clock import Clock
from servelens.errors import Invalid

_Limit = Annotated[int, Query(ge=1, le=1000)]
_Since = Annotated[AwareDatetime | None, Query(description="Leaves out incidents that ended before it.")]
_SilenceId = Annotated[int, Path(ge=1, le=2**31 - 1)]


class SilenceBody(BaseModel):
    """What is silenced (each may have ``*``), until when or for how many minutes, and why."""

    model_config = ConfigDict(extra="forbid")

    rule: str | None = None
    endpoint: str | None = None
    slice: str | None = Field(None, description="Name of the variant.")
    starts_at: AwareDatetime | None = Field(None, description="Default: now.")
    ends_at: AwareDatetime | None = None
    minutes: float | None = Field(None, gt=0, le=527_040, allow_inf_nan=False)
    reason: str


def router(
    overview: AlertOverview, silences: Silences, rules: Sequence[AlertRule], clock: Clock
) -> APIRouter:
    """The routes. ``rules`` are those of the settings."""
    routes = APIRouter(prefix="/api/alerts", tags=["alerts"])

    @routes.get("")
    def alerts(endpoint: str | None = None) -> dict[str, Any]:
        """Every rule and its slices, those that fire first."""
        return {"alerts": overview.alerts(rules, endpoint=endpoint)}

    @routes.get("/incidents")
    def incidents(
        open: bool = False,
        endpoint: str | None = None,
        rule: str | None = None,
        since: _Since = None,
        limit: _Limit = 100,
    ) -> dict[str, Any]:
        """Incidents, the newest first; with ``open`` those that fire now."""
        found = overview.incidents(open_only=open, endpoint=endpoint, rule=rule, since=since, limit=limit)
        return {"incidents": found}

    @routes.get("/incidents/{key}")
    def incident(key: str) -> dict[str, Any]:
        """One incident, and who was told of it and how that went."""
        return overview.incident(key)

    @routes.get("/silences")
    def list_silences(ended: bool = False, limit: _Limit = 200) -> dict[str, Any]:
        """The silences that hold or will hold; with ``ended`` also the others."""
        return {"silences": [each.to_dict() for each in silences.list(with_ended=ended, limit=limit)]}

    @routes.post("/silences", status_code=201)
    def silence(body: SilenceBody, by: Caller) -> dict[str, Any]:
        """Tell nobody of what matches, for some time."""
        made = silences.add(
            rule=body.rule,
            endpoint=body.endpoint,
            slice_=body.slice,
            starts_at=body.starts_at,
            ends_at=_end(body, clock),
            author=by,
            reason=body.reason,
        )
        return made.to_dict()

    @routes.delete("/silences/{number}")
    def unsilence(number: _SilenceId, by: Caller) -> dict[str, Any]:
        """End a silence now; what still fires is told of at the next delivery."""
        return silences.end(number, by).to_dict()

    return routes


def _end(body: SilenceBody, clock: Clock) -> datetime:
    if (body.ends_at is None) == (body.minutes is None):
        raise Invalid("a silence has one end", field="ends_at", fix="Give either 'ends_at' or 'minutes'.")
    if body.ends_at is not None:
        return body.ends_at
    assert body.minutes is not None, "one of the two is given"
    return (body.starts_at or clock.now()) + timedelta(minutes=body.minutes)
