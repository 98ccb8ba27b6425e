"""The proxy's snapshot of endpoints and experiments, from the settings. Imports nothing heavy."""

from __future__ import annotations

from servelens.assembly.experiments import build_experiments
from servelens.endpoint_settings import EndpointSettings, ServedEntitySettings
from servelens.settings import Settings
from serving_proxy.endpoint import Backend, Endpoint, Overrides, Route, ServedEntity, Timeouts
from serving_proxy.routing import Snapshot


def build_snapshot(settings: Settings) -> Snapshot:
    """All endpoints and their experiments, checked against each other."""
    return Snapshot.of((_endpoint(endpoint) for endpoint in settings.endpoints), build_experiments(settings))


def _endpoint(settings: EndpointSettings) -> Endpoint:
    entities = settings.config.served_entities
    traffic = settings.config.traffic_config
    routes = (
        tuple(Route(route.served_entity_name, route.traffic_percentage) for route in traffic.routes)
        if traffic
        else (Route(entities[0].name, 100.0),)
    )
    return Endpoint(
        name=settings.name,
        served_entities=tuple(_entity(settings.name, entity) for entity in entities),
        routes=routes,
        payload_limit_bytes=settings.payload_limit_bytes,
    )


def _entity(endpoint: str, settings: ServedEntitySettings) -> ServedEntity:
    backend, timeouts = settings.backend, settings.backend.timeouts
    return ServedEntity(
        name=settings.name,
        entity_version=settings.entity_version,
        id=f"{endpoint}/{settings.name}/{settings.entity_version}",
        backend=Backend(
            urls=tuple(backend.urls),
            api=backend.api,
            model=backend.model,
            api_key=backend.api_key.get_secret_value() if backend.api_key else None,
            timeouts=Timeouts(timeouts.connect_s, timeouts.first_byte_s, timeouts.idle_s, timeouts.total_s),
        ),
        overrides=Overrides(body=settings.overrides.body, system_prompt=settings.overrides.system_prompt),
    )
