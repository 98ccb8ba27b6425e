"""HTTP API of the label schemas, of what a case's scores suggest, and of the answers that a case compares.

Errors are raised as :class:`~servelens.errors.ServelensError`; the application that includes the router turns them into
problem details. Handlers are plain functions, so that they run beside the event loop, never on it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Path, Request
from pydantic import BaseModel, ConfigDict, Field

from collector.catalog import EndpointTables
from relabel.alternatives import Added, Alternatives, uploaded
from relabel.regeneration import Regeneration
from relabel.schema_definition import definition_of, parse_schema
from relabel.schema_store import SchemaStore
from relabel.suggestions import Suggested, suggestions_for
from servelens.api_caller import Caller, Revision, api_key
from servelens.database import Database
from servelens.errors import Invalid, Missing

_CaseId = Annotated[int, Path(ge=1, le=2**63 - 1)]
_Definition = Annotated[
    Any, Body(description="A label schema, as in the settings file, without its endpoint.")
]


class _AnswerBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    annotator: str | None = Field(
        None, description="Who has the case: while they have it, nobody else can add an answer."
    )


class RefreshBody(_AnswerBody):
    """Who wants what shadows have answered since."""


class UploadBody(_AnswerBody):
    """An answer from elsewhere."""

    source: Literal["uploaded"] = "uploaded"
    text: str
    served_entity: str | None = None
    model: str | None = None


class RegenerateBody(_AnswerBody):
    """Whom to ask for another answer."""

    served_entity: str | None = Field(
        None, description="Past all routes. Default: whichever the endpoint chooses."
    )


class CheckedSchema(BaseModel):
    """The schema with everything that it leaves to a default."""

    model_config = ConfigDict(protected_namespaces=())

    definition: dict[str, Any] = Field(serialization_alias="schema")


def router(
    store: SchemaStore,
    database: Database,
    alternatives: Alternatives,
    *,
    endpoints: Callable[[], Collection[str]],
    tables: Callable[[str], EndpointTables],
    regeneration: Regeneration,
) -> APIRouter:
    """Routes under ``/api/relabel``. ``endpoints`` gives the names of those that there are, ``tables`` those of one."""
    routes = APIRouter(prefix="/api/relabel", tags=["relabel"])
    _add_schema_routes(routes, store, endpoints)
    _add_case_routes(routes, store, database)
    _add_answer_routes(routes, alternatives, tables, regeneration)
    return routes


def _add_schema_routes(
    routes: APIRouter, store: SchemaStore, endpoints: Callable[[], Collection[str]]
) -> None:
    def known(endpoint: str) -> str:
        names = endpoints()
        if endpoint not in names:
            raise Missing(
                f"there is no endpoint {endpoint!r}"[:300],
                field="endpoint",
                fix=f"Use one of: {', '.join(sorted(names)) or 'there is none yet'}.",
            )
        return endpoint

    @routes.get("/schemas")
    def all_schemas() -> dict[str, Any]:
        """What annotators are asked now, of all endpoints."""
        return {"schemas": [store.get(endpoint).to_dict() for endpoint in sorted(endpoints())]}

    @routes.get("/schemas/{endpoint}")
    def schema(endpoint: str) -> dict[str, Any]:
        """What annotators are asked now."""
        return store.get(known(endpoint)).to_dict()

    @routes.get("/schemas/{endpoint}/versions")
    def versions(endpoint: str) -> dict[str, Any]:
        """All versions that somebody made, the newest first."""
        return {"versions": [stored.to_dict() for stored in store.versions(known(endpoint))]}

    @routes.get("/schemas/{endpoint}/versions/{version}")
    def version(endpoint: str, version: int) -> dict[str, Any]:
        """What they were asked then; 0 is the default."""
        return store.get(known(endpoint), version).to_dict()

    @routes.put("/schemas/{endpoint}")
    def put(endpoint: str, definition: _Definition, by: Caller, expected: Revision) -> dict[str, Any]:
        """Ask this from now on; cases that annotators hold keep what they were asked. ``If-Match``: the version that was
        read.
        """
        stored = store.put(known(endpoint), _json(definition), by=by, expected_version=expected)
        return store.get(endpoint, stored.version).to_dict()

    @routes.post("/schemas/{endpoint}/check")
    def check(endpoint: str, definition: _Definition) -> CheckedSchema:
        """Whether it could be put; nothing is changed."""
        known(endpoint)
        return CheckedSchema(definition=definition_of(parse_schema(_json(definition))))


def _add_case_routes(routes: APIRouter, store: SchemaStore, database: Database) -> None:
    @routes.get("/cases/{case_id}/suggestions")
    def suggested(case_id: _CaseId, annotator: str | None = None) -> dict[str, list[Suggested]]:
        """Answers that the scores suggest, by field; none unless the schema shows them."""
        return suggestions_for(database, store, case_id, annotator)


def _add_answer_routes(
    routes: APIRouter,
    alternatives: Alternatives,
    tables: Callable[[str], EndpointTables],
    regeneration: Regeneration,
) -> None:
    @routes.post("/cases/{case_id}/alternatives")
    def upload(case_id: _CaseId, body: UploadBody, by: Caller) -> Added:
        """Add another answer to compare with."""
        answer = uploaded(body.text, served_entity=body.served_entity, model=body.model)
        return alternatives.add(case_id, [answer], actor=body.annotator or by, annotator=body.annotator)

    @routes.post("/cases/{case_id}/alternatives/refresh")
    def refresh(case_id: _CaseId, by: Caller, body: RefreshBody | None = None) -> Added:
        """Add what shadows have answered to the request."""
        annotator = None if body is None else body.annotator
        question = alternatives.question(case_id, annotator)
        return alternatives.add_shadow_answers(
            case_id, tables(question.endpoint), actor=annotator or by, annotator=annotator
        )

    @routes.post("/cases/{case_id}/regenerate")
    def regenerate(
        case_id: _CaseId, request: Request, by: Caller, body: RegenerateBody | None = None
    ) -> Added:
        """Ask the endpoint for another answer, with the caller's own key, and add it."""
        body = body or RegenerateBody(annotator=None, served_entity=None)
        question = alternatives.question(case_id, body.annotator)
        answer = regeneration.ask(question, body.served_entity, api_key(request))
        return alternatives.add(case_id, [answer], actor=body.annotator or by, annotator=body.annotator)


def _json(body: Any) -> Any:
    if isinstance(body, bytes):
        raise Invalid(
            "it was not sent as JSON", field="body", fix="Send the header 'content-type: application/json'."
        )
    return body
