"""Endpoints as Databricks' API shows them: ``ServingEndpointDetailed`` of databricks-sdk, with our fields beside theirs.

https://docs.databricks.com/api/workspace/servingendpoints/get. Secrets are never shown: a reference comes back in the
field that Databricks has for it (``openai_api_key``), anything else as a mask in the field that it was given in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from servelens.control.models import EndpointVersionRow
from servelens.control.proxy_workers import WorkerState
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.secret_references import is_reference

ConfigUpdate = Literal["NOT_UPDATING", "IN_PROGRESS", "UPDATE_FAILED"]

_PLAINTEXT: Final = "_plaintext"


@dataclass(frozen=True, slots=True)
class EndpointState:
    """Whether any worker serves the endpoint, and whether all of them serve its present configuration; ``reason`` is
    why one of them cannot.
    """

    is_ready: bool
    config_update: ConfigUpdate
    reason: str | None = None

    @classmethod
    def of(cls, endpoint: StoredEndpoint, workers: Sequence[WorkerState]) -> EndpointState:
        """Its state, given all live workers."""
        behind = not workers or any(worker.generation < endpoint.config_generation for worker in workers)
        reasons = [worker.failing[endpoint.name] for worker in workers if endpoint.name in worker.failing]
        is_ready = any(
            worker.generation >= endpoint.created_generation and endpoint.name not in worker.failing
            for worker in workers
        )
        if behind:
            return cls(is_ready, "IN_PROGRESS")
        return cls(is_ready, "UPDATE_FAILED", reasons[0]) if reasons else cls(is_ready, "NOT_UPDATING")


def detailed(
    endpoint: StoredEndpoint, state: EndpointState, before: EndpointVersionRow | None
) -> dict[str, Any]:
    """One endpoint. ``before`` is the version that is still served somewhere while an update is under way."""
    answer = {
        **_head(endpoint, state),
        "config": _config(endpoint, endpoint.shown, endpoint.config_version, state),
        "ai_gateway": endpoint.shown.get("ai_gateway", {}),
        "permission_level": "CAN_MANAGE",
        "route_optimized": False,
        "source": endpoint.source,
    }
    if "payload_limit_bytes" in endpoint.shown:
        answer["payload_limit_bytes"] = endpoint.shown["payload_limit_bytes"]
    if state.config_update == "IN_PROGRESS":
        answer["pending_config"] = {**answer["config"], "start_time": _milliseconds(endpoint.updated_at)}
        if before is not None and before.config_version != endpoint.config_version:
            served = EndpointState(True, "NOT_UPDATING")
            answer["config"] = _config(endpoint, before.settings, before.config_version, served)
    return answer


def summary(endpoint: StoredEndpoint, state: EndpointState) -> dict[str, Any]:
    """One endpoint in a list."""
    shown = _config(endpoint, endpoint.shown, endpoint.config_version, state)
    entities = [
        {
            name: entity[name]
            for name in ("name", "entity_version", "external_model", "backend")
            if name in entity
        }
        for entity in shown["served_entities"]
    ]
    return {
        **_head(endpoint, state),
        "config": {"served_entities": entities},
        "ai_gateway": endpoint.shown.get("ai_gateway", {}),
    }


def gateway(endpoint: StoredEndpoint) -> dict[str, Any]:
    """The AI Gateway of an endpoint."""
    return dict(endpoint.shown.get("ai_gateway", {}))


def tags(endpoint: StoredEndpoint) -> list[dict[str, str]]:
    """The tags of an endpoint."""
    return list(endpoint.shown.get("tags", []))


def _head(endpoint: StoredEndpoint, state: EndpointState) -> dict[str, Any]:
    head: dict[str, Any] = {
        "name": endpoint.name,
        "id": endpoint.id,
        "creator": endpoint.creator,
        "creation_timestamp": _milliseconds(endpoint.created_at),
        "last_updated_timestamp": _milliseconds(endpoint.updated_at),
        "state": {
            "ready": "READY" if state.is_ready else "NOT_READY",
            "config_update": state.config_update,
        },
        "tags": tags(endpoint),
    }
    if endpoint.description is not None:
        head["description"] = endpoint.description
    external = endpoint.shown["config"]["served_entities"][0].get("external_model")
    if external is not None:
        head["task"] = external.get("task", "llm/v1/chat")
        head["endpoint_type"] = "EXTERNAL_MODEL"
    return head


def _config(
    endpoint: StoredEndpoint, shown: Mapping[str, Any], version: int, state: EndpointState
) -> dict[str, Any]:
    config = shown["config"]
    entities = config["served_entities"]
    shadows = config.get("shadows", [])
    traffic = config.get("traffic_config")
    if traffic is None:
        mirrored = {shadow["served_entity_name"] for shadow in shadows}
        alone = next(entity["name"] for entity in entities if entity["name"] not in mirrored)
        routes = [{"served_entity_name": alone, "traffic_percentage": 100}]
    else:
        routes = traffic["routes"]
    answer = {
        "served_entities": [_entity(entity, endpoint, state) for entity in entities],
        "traffic_config": {"routes": [_route(route) for route in routes]},
        "config_version": version,
    }
    if shadows:
        answer["shadows"] = shadows
    return answer


def _route(route: Mapping[str, Any]) -> dict[str, Any]:
    share = route["traffic_percentage"]
    name = route["served_entity_name"]
    whole = int(share) if float(share).is_integer() else share
    return {"served_model_name": name, "served_entity_name": name, "traffic_percentage": whole}


def _entity(entity: Mapping[str, Any], endpoint: StoredEndpoint, state: EndpointState) -> dict[str, Any]:
    deployment, message = "DEPLOYMENT_READY", ""
    if state.config_update == "IN_PROGRESS":
        deployment = "DEPLOYMENT_CREATING"
    elif state.config_update == "UPDATE_FAILED":
        deployment, message = "DEPLOYMENT_FAILED", state.reason or ""
    answer = {
        "entity_version": "1",
        **entity,
        "creator": endpoint.creator,
        "creation_timestamp": _milliseconds(endpoint.created_at),
        "state": {"deployment": deployment, "deployment_state_message": message},
    }
    if entity.get("external_model") is not None:
        answer["external_model"] = _references(entity["external_model"])
    return answer


def _references(section: Mapping[str, Any]) -> dict[str, Any]:
    """References to secrets in Databricks' own field for them."""
    shown: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            shown[name] = _references(value)
        elif name.endswith(_PLAINTEXT) and isinstance(value, str) and is_reference(value):
            shown[name.removesuffix(_PLAINTEXT)] = value
        else:
            shown[name] = value
    return shown


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
