"""HTTP API of selection under ``/api/relabel``: what the rules found, and a record that a person sends to the queue."""

from __future__ import annotations

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from relabel.selection.manual import MAX_PRIORITY, ManualSelection, Queued
from relabel.selection.rule_days import RuleCounts, RuleDays
from servelens.api_caller import NOBODY, Caller


class CaseBody(BaseModel):
    """A record for the queue."""

    model_config = ConfigDict(extra="forbid")

    endpoint: str
    databricks_request_id: str
    reason: str = Field(description="Why somebody should look at it, in a sentence.")
    priority: int = Field(0, ge=-MAX_PRIORITY, le=MAX_PRIORITY)


class RuleList(BaseModel):
    """What the rules found."""

    rules: list[RuleCounts]


def router(manual: ManualSelection, days: RuleDays) -> APIRouter:
    """The routes. Inputs that break a rule raise :class:`~servelens.errors.Invalid` naming the field."""
    routes = APIRouter(prefix="/api/relabel", tags=["relabel"])

    @routes.post("/cases", status_code=201, responses={200: {"description": "It is in the queue already."}})
    def add(body: CaseBody, caller: Caller, response: Response) -> Queued:
        """Make a record a case, whatever the rules say of it; one that is a case already gets the reason."""
        queued = manual.add(
            body.endpoint,
            body.databricks_request_id,
            reason=body.reason,
            priority=body.priority,
            by=None if caller == NOBODY else caller,
        )
        if not queued.created:
            response.status_code = 200
        return queued

    @routes.get("/rules")
    def rules(endpoint: str | None = None) -> RuleList:
        """Per rule, today and in 7 days: new cases, and records that made none, by why."""
        return RuleList(rules=days.read(endpoint))

    return routes
