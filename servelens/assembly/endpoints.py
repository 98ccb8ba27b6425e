"""Endpoints as the proxy serves them, from their settings. Imports nothing heavy."""

from __future__ import annotations

from servelens.endpoint_settings import BackendSettings, EndpointSettings, ServedEntitySettings
from servelens.external_model_settings import ExternalModelSettings
from servelens.gateway_settings import AiGatewaySettings, GuardrailSideSettings, SafetySettings
from serving_proxy.endpoint import (
    Backend,
    Endpoint,
    Gateway,
    GuardrailAction,
    Guardrails,
    HealthCheck,
    Overrides,
    Pool,
    RateLimit,
    Retries,
    Route,
    Safety,
    ServedEntity,
    Shadow,
    Timeouts,
)


def build_endpoint(settings: EndpointSettings, config_version: int = 1) -> Endpoint:
    """One endpoint as the proxy serves it. Raises InvalidSettings."""
    entities = settings.config.served_entities
    shadows = {shadow.served_entity_name for shadow in settings.config.shadows}
    traffic = settings.config.traffic_config
    routes = (
        tuple(Route(route.served_entity_name, route.traffic_percentage) for route in traffic.routes)
        if traffic
        else (Route(next(entity.name for entity in entities if entity.name not in shadows), 100.0),)
    )
    return Endpoint(
        name=settings.name,
        served_entities=tuple(_entity(settings.name, entity) for entity in entities),
        routes=routes,
        payload_limit_bytes=settings.payload_limit_bytes,
        config_version=config_version,
        gateway=_gateway(settings.ai_gateway),
        shadows=tuple(
            Shadow(shadow.served_entity_name, shadow.percentage, shadow.max_concurrency, shadow.timeout_s)
            for shadow in settings.config.shadows
        ),
    )


def _entity(endpoint: str, settings: ServedEntitySettings) -> ServedEntity:
    if settings.backend is not None:
        backend = _backend(settings.backend)
    else:
        assert settings.external_model is not None
        backend = _external(settings.external_model)
    return ServedEntity(
        name=settings.name,
        entity_version=settings.entity_version,
        id=f"{endpoint}/{settings.name}/{settings.entity_version}",
        backend=backend,
        overrides=Overrides(body=settings.overrides.body, system_prompt=settings.overrides.system_prompt),
    )


def _backend(settings: BackendSettings) -> Backend:
    timeouts, health = settings.timeouts, settings.health
    retries, pool = settings.retries, settings.pool
    return Backend(
        urls=tuple(settings.urls),
        api=settings.api,
        model=settings.model,
        api_key=settings.api_key.get_secret_value() if settings.api_key else None,
        timeouts=Timeouts(timeouts.connect_s, timeouts.first_byte_s, timeouts.idle_s, timeouts.total_s),
        health=HealthCheck(
            path=health.path,
            interval_s=health.interval_s,
            timeout_s=health.timeout_s,
            down_after=health.down_after,
            up_after=health.up_after,
            eject_after=health.eject_after,
            ejection_s=health.ejection_s,
        ),
        retries=Retries(retries.attempts, retries.base_s, retries.max_s, retries.budget),
        pool=Pool(pool.max_connections, pool.max_queue, pool.queue_s),
    )


def _external(settings: ExternalModelSettings) -> Backend:
    place = settings.place
    key = place.key.get_secret_value() if place.key else None
    return Backend(urls=(place.url,), api=place.api, model=settings.name, api_key=key)


def _gateway(settings: AiGatewaySettings) -> Gateway:
    table, concurrency = settings.inference_table_config, settings.concurrency
    return Gateway(
        fallback=settings.fallback_config.enabled,
        rate_limits=tuple(
            RateLimit(
                "endpoint" if limit.key == "endpoint" else "user",
                calls=limit.calls,
                tokens=limit.tokens,
                principal=limit.principal,
            )
            for limit in settings.rate_limits
        ),
        input_guardrails=_guardrails(settings.guardrails.input),
        output_guardrails=_guardrails(settings.guardrails.output),
        payload_logging=table.payload_logging if table.enabled else "off",
        sampling_fraction=table.sampling_fraction,
        redact_paths=tuple(table.redact_paths),
        redact_headers=tuple(table.redact_headers),
        pseudonym_key=table.pseudonym_key.get_secret_value().encode() if table.pseudonym_key else b"",
        max_concurrency=concurrency.max_concurrency,
        max_queue=concurrency.max_queue,
        queue_s=concurrency.queue_s,
        usage_tracking=settings.usage_tracking_config.enabled,
    )


def _guardrails(settings: GuardrailSideSettings | None) -> Guardrails | None:
    if settings is None:
        return None
    actions: dict[str, GuardrailAction | None] = {"NONE": None, "BLOCK": "block", "MASK": "mask"}
    found = Guardrails(
        tuple(settings.invalid_keywords), actions[settings.pii.behavior], _safety(settings.safety)
    )
    return found if found.invalid_keywords or found.pii or found.safety else None


def _safety(settings: SafetySettings | None) -> Safety | None:
    if settings is None:
        return None
    return Safety(
        settings.action,
        threshold=settings.threshold,
        fails_open=settings.fails_open,
        timeout_s=settings.timeout_ms / 1e3,
        streams=settings.streams,
    )
