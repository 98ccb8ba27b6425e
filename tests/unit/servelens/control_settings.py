"""Endpoints for tests of the control plane."""

from __future__ import annotations

from typing import Any

from servelens.control.store import EndpointStore
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.endpoint_settings import EndpointSettings

REFERENCE = "{{secrets/llm/openai}}"


def backend(name: str = "champion", url: str = "http://gpu-1:8000", **more: Any) -> dict[str, Any]:
    """A served entity on a model server of one's own."""
    return {"name": name, "backend": {"urls": [url], **more}}


def openai_model(name: str = "gpt", **config: Any) -> dict[str, Any]:
    """A served entity at a provider, as Databricks' clients write it."""
    external = {
        "name": "gpt-4o",
        "provider": "openai",
        "task": "llm/v1/chat",
        "openai_config": config or {"openai_api_key": REFERENCE},
    }
    return {"name": name, "external_model": external}


def routes(**shares: float) -> dict[str, Any]:
    """A traffic config."""
    return {
        "routes": [
            {"served_entity_name": name, "traffic_percentage": share} for name, share in shares.items()
        ]
    }


def settings(name: str = "chat", *entities: dict[str, Any], **more: Any) -> EndpointSettings:
    """An endpoint with these served entities, all traffic to the first."""
    entities = entities or (backend(),)
    split = routes(**{entities[0]["name"]: 100})
    config = {"served_entities": list(entities), "traffic_config": split, **more.pop("config", {})}
    return EndpointSettings.model_validate({"name": name, "config": config, **more})


def stored(store: EndpointStore, *entities: dict[str, Any], **more: Any) -> StoredEndpoint:
    """The endpoint ``chat``, created."""
    return store.create(settings("chat", *entities, **more), by="ann")
