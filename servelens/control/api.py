"""``/api/2.0/serving-endpoints``: the control plane, as databricks-sdk and MLflow's deployment client call it.

https://docs.databricks.com/api/workspace/servingendpoints. Handlers are plain functions, which FastAPI runs beside the
event loop: the data plane shares that loop. With API keys in use every call needs the scope ``admin``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Request, Response
from fastapi.responses import JSONResponse

from experiments.experiment import Experiment
from servelens.control import endpoint_answers, endpoint_requests, open_metrics, openapi
from servelens.control.endpoint_answers import EndpointState
from servelens.control.open_metrics import LastMinute
from servelens.control.proxy_workers import ProxyWorkers
from servelens.control.refusals import DatabricksRoute
from servelens.control.snapshot_source import BuildEndpoint
from servelens.control.store import Action, EndpointStore
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.control.stored_settings import resolved
from servelens.endpoint_settings import EndpointConfigSettings, EndpointSettings
from servelens.errors import Conflict, Invalid, Missing
from servelens.secret_references import Secrets
from serving_proxy.authentication import Requester
from serving_proxy.publication import Published
from serving_proxy.routing import Snapshot

NOBODY = "anonymous"
"""Who has changed something while no API keys are in use."""

_BASE = "/api/2.0/serving-endpoints"
_Object = Annotated[dict[str, Any], Body()]
_Change = Callable[[StoredEndpoint, dict[str, Any]], EndpointSettings]


class ControlPlane:
    """What the routes do. ``build`` makes of settings what a worker serves, so that nothing is stored that no worker can
    serve; ``experiments`` gives the live ones, whose served entities must stay.
    """

    def __init__(
        self,
        store: EndpointStore,
        workers: ProxyWorkers,
        secrets: Secrets,
        build: BuildEndpoint,
        experiments: Callable[[], Sequence[Experiment]],
    ) -> None:
        self._store = store
        self._workers = workers
        self._secrets = secrets
        self._build = build
        self._experiments = experiments

    def create(self, body: dict[str, Any], by: str) -> dict[str, Any]:
        """Add an endpoint."""
        settings, description = endpoint_requests.new_endpoint(body)
        self._check(settings)
        return self._shown(self._store.create(settings, by=by, description=description))

    def get(self, name: str) -> dict[str, Any]:
        """Show an endpoint."""
        return self._shown(self._store.get(name))

    def all(self) -> list[dict[str, Any]]:
        """Show all endpoints."""
        workers = self._workers.live()
        return [
            endpoint_answers.summary(endpoint, EndpointState.of(endpoint, workers))
            for endpoint in self._store.all()
        ]

    def update(
        self,
        name: str,
        change: _Change,
        body: dict[str, Any],
        by: str,
        action: Action,
        if_match: str | None = None,
    ) -> StoredEndpoint:
        """Change an endpoint, unless a live experiment needs what would go."""

        def change_to(endpoint: StoredEndpoint) -> EndpointSettings:
            settings = change(endpoint, body)
            self._check(settings)
            self._refuse_loss(name, settings.config)
            return settings

        return self._store.update(name, change_to, by=by, action=action, expected_version=_version(if_match))

    def updated(self, name: str, body: dict[str, Any], by: str, if_match: str | None) -> dict[str, Any]:
        """Change the configuration of an endpoint and show it."""
        change = endpoint_requests.changed_config
        return self._shown(self.update(name, change, body, by, "config", if_match))

    def delete(self, name: str, by: str) -> None:
        """Remove an endpoint, unless an experiment runs on it."""
        self._store.delete(name, by=by, check=lambda _: self._refuse_loss(name, None))

    def openapi(self, name: str, server: str) -> dict[str, Any]:
        """What may be sent to an endpoint."""
        return openapi.document(self._store.get(name), server)

    def _shown(self, endpoint: StoredEndpoint) -> dict[str, Any]:
        workers = self._workers.live()
        state = EndpointState.of(endpoint, workers)
        before = None
        if state.config_update == "IN_PROGRESS" and workers:
            before = self._store.served_before(endpoint.name, min(each.generation for each in workers))
        return endpoint_answers.detailed(endpoint, state, before)

    def _check(self, settings: EndpointSettings) -> None:
        self._build(resolved(settings, self._secrets), 1)

    def _refuse_loss(self, endpoint: str, config: EndpointConfigSettings | None) -> None:
        """``config`` is what will be served, ``None`` nothing."""
        entities = {entity.name for entity in config.served_entities} if config else set()
        shadows = {shadow.served_entity_name for shadow in config.shadows} if config else set()
        for experiment in self._experiments():
            if experiment.endpoint != endpoint:
                continue
            needed = {variant.served_entity for variant in experiment.variants}
            if not needed <= entities:
                raise _needed(experiment, f"needs served entity '{min(needed - entities)}'")
            mirrored = {variant.served_entity for variant in experiment.treatments}
            if experiment.kind == "shadow" and not mirrored <= shadows:
                raise _needed(experiment, f"needs '{min(mirrored - shadows)}' as a shadow")


def _needed(experiment: Experiment, what: str) -> Conflict:
    return Conflict(
        f"the experiment '{experiment.name}', which has not ended, {what} of endpoint '{experiment.endpoint}'.",
        fix=f"Stop it first: servelens experiment stop {experiment.name}, or remove it from servelens.yaml.",
    )


def _version(if_match: str | None) -> int | None:
    if if_match is None or if_match == "*":
        return None
    try:
        return int(if_match.strip('"'))
    except ValueError:
        raise Invalid("is not a config_version.", field="If-Match") from None


def router(
    control: ControlPlane,
    minute: LastMinute,
    require_admin: Callable[[Request], Awaitable[Requester | None]],
    snapshot: Callable[[], Snapshot],
    published: Callable[[], Awaitable[list[Published]]],
) -> APIRouter:
    """The routes. ``snapshot`` and ``published`` are what this worker serves and what all of this machine count."""
    admin = Depends(require_admin)
    routes = APIRouter(route_class=DatabricksRoute, include_in_schema=False)

    def name_of(requester: Requester | None = admin) -> str:
        return requester.name if requester else NOBODY

    caller = Depends(name_of)

    @routes.get("/.well-known/databricks-config")
    def discovery() -> dict[str, Any]:
        """databricks-sdk asks for this before its first call: there is nothing to discover."""
        return {}

    @routes.post(_BASE)
    @routes.post(f"{_BASE}/")
    def create(body: _Object, by: str = caller) -> dict[str, Any]:
        return control.create(body, by)

    @routes.get(_BASE, dependencies=[admin])
    @routes.get(f"{_BASE}/", dependencies=[admin])
    def all_endpoints() -> dict[str, Any]:
        return {"endpoints": control.all()}

    @routes.get(f"{_BASE}/{{name}}", dependencies=[admin])
    def get(name: str) -> dict[str, Any]:
        return control.get(name)

    @routes.put(f"{_BASE}/{{name}}/config")
    def update_config(
        name: str, body: _Object, if_match: Annotated[str | None, Header()] = None, by: str = caller
    ) -> dict[str, Any]:
        return control.updated(name, body, by, if_match)

    @routes.put(f"{_BASE}/{{name}}/ai-gateway")
    def put_ai_gateway(name: str, body: _Object, by: str = caller) -> dict[str, Any]:
        change = endpoint_requests.changed_gateway
        return endpoint_answers.gateway(control.update(name, change, body, by, "ai_gateway"))

    @routes.put(f"{_BASE}/{{name}}/rate-limits")
    def put_rate_limits(name: str, body: _Object, by: str = caller) -> dict[str, Any]:
        change = endpoint_requests.changed_rate_limits
        endpoint = control.update(name, change, body, by, "rate_limits")
        return {"rate_limits": endpoint_answers.gateway(endpoint).get("rate_limits", [])}

    @routes.patch(f"{_BASE}/{{name}}/tags")
    def patch_tags(name: str, body: _Object, by: str = caller) -> dict[str, Any]:
        endpoint = control.update(name, endpoint_requests.changed_tags, body, by, "tags")
        return {"tags": endpoint_answers.tags(endpoint)}

    @routes.delete(f"{_BASE}/{{name}}")
    def delete(name: str, by: str = caller) -> dict[str, Any]:
        control.delete(name, by)
        return {}

    @routes.get(f"{_BASE}/{{name}}/openapi", dependencies=[admin])
    def get_open_api(name: str, request: Request) -> JSONResponse:
        return JSONResponse(control.openapi(name, str(request.base_url).rstrip("/")))

    @routes.get(f"{_BASE}/{{name}}/metrics", dependencies=[admin])
    async def export_metrics(name: str) -> Response:
        endpoint = snapshot().endpoints.get(name)
        if endpoint is None:
            raise Missing(f"there is no endpoint named '{name}'.", field="name")
        workers = await published()
        text = open_metrics.render(endpoint, minute.of(name, workers), len(workers))
        return Response(text, media_type=open_metrics.CONTENT_TYPE)

    return routes


def not_offered(require_admin: Callable[[Request], Awaitable[Requester | None]]) -> APIRouter:
    """The rest of ``/api/2.0``, said to be missing in Databricks' words. Mount it after everything else there."""
    routes = APIRouter(route_class=DatabricksRoute, include_in_schema=False)

    @routes.api_route(
        "/api/2.0/{path:path}",
        methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
        dependencies=[Depends(require_admin)],
    )
    def missing(path: str, request: Request) -> JSONResponse:
        message = f"No API found for '{request.method} /api/2.0/{path}'. {_why(path)}".strip()
        return JSONResponse({"error_code": "ENDPOINT_NOT_FOUND", "message": message}, 404)

    return routes


def _why(path: str) -> str:
    if path.startswith("permissions/"):
        return "servelens has no permissions on single endpoints: who may do what is said by the scopes of API keys."
    if path.startswith("serving-endpoints/pt"):
        return "servelens runs no models, so it has no provisioned throughput: create an endpoint with a 'backend'."
    if path.endswith(("/logs", "/build-logs")):
        return "servelens runs no models: their logs are where they run."
    if path.endswith(("/notifications", "/telemetry-config")):
        return "servelens sends no notifications and is configured in servelens.yaml."
    return ""
