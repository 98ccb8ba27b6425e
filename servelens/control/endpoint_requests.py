"""What the control plane is asked for, in Databricks' JSON, as endpoint settings.

The bodies are those of https://docs.databricks.com/api/workspace/servingendpoints; a served entity may have our
``backend`` in place of an ``external_model``. Fields that size Databricks' own compute are taken and mean nothing here;
whatever else would be lost is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from servelens.control.invalid_settings import invalid_settings
from servelens.control.stored_endpoint import StoredEndpoint
from servelens.control.stored_settings import with_secrets
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import Invalid, InvalidSettings
from servelens.secret_references import is_reference

_COMPUTE: Final = frozenset(
    {
        "burst_scaling_enabled",
        "entity_name",
        "max_provisioned_concurrency",
        "max_provisioned_throughput",
        "min_provisioned_concurrency",
        "min_provisioned_throughput",
        "provisioned_model_units",
        "scale_to_zero_enabled",
        "workload_size",
        "workload_type",
    }
)
_SHOWN_ONLY: Final = frozenset({"creator", "creation_timestamp", "state", "id"})
_NOT_HERE: Final = {
    "budget_policy_id": "servelens has no budget policies.",
    "usage_policy_id": "servelens has no usage policies.",
    "email_notifications": "servelens sends no mail.",
    "telemetry_config": "telemetry is configured in servelens.yaml.",
    "served_models": "models of a registry are not served here.",
    "auto_capture_config": "it is deprecated.",
    "environment_vars": "the model server is not started here.",
    "instance_profile_arn": "the model server is not started here.",
}
_INSTEAD: Final = {
    "served_models": "Use 'served_entities', each with an 'external_model' or a 'backend'.",
    "auto_capture_config": "Use 'ai_gateway.inference_table_config'.",
    "environment_vars": "Set them where it runs.",
    "instance_profile_arn": "Set it where it runs.",
}
_OWN_GATEWAY: Final = ("concurrency",)
_OWN_TABLE: Final = ("payload_logging", "sampling_fraction", "redact_paths")
_PROVIDER_KEYS: Final = {
    "openai_config": "openai_api_key",
    "anthropic_config": "anthropic_api_key",
    "cohere_config": "cohere_api_key",
    "ai21labs_config": "ai21labs_api_key",
}


def new_endpoint(body: Mapping[str, Any]) -> tuple[EndpointSettings, str | None]:
    """An endpoint to create, and its description. Raises Invalid that names the field."""
    given = _known(body, "")
    description = given.pop("description", None)
    if description is not None and not isinstance(description, str):
        raise Invalid("is not a text.", field="description")
    given.pop("route_optimized", None)
    given["config"] = _config(_object(given.get("config"), "config"), "config")
    limits = given.pop("rate_limits", None)
    if limits:
        gateway = dict(_object(given.get("ai_gateway", {}), "ai_gateway"))
        given["ai_gateway"] = {**gateway, "rate_limits": gateway.get("rate_limits") or limits}
    return _settings(with_secrets(given, {}), ""), description


def changed_config(endpoint: StoredEndpoint, body: Mapping[str, Any]) -> EndpointSettings:
    """The endpoint with other served entities, another split, or both."""
    given = _config(body, "")
    if not given:
        raise Invalid(
            "is missing.", field="served_entities", fix="Give served_entities, traffic_config or both."
        )
    config = {**endpoint.settings["config"], **given}
    if "served_entities" in given and "traffic_config" not in given and not _fits(config):
        del config["traffic_config"]
    return _settings(_merged(endpoint, config=config), "config")


def changed_gateway(endpoint: StoredEndpoint, body: Mapping[str, Any]) -> EndpointSettings:
    """The endpoint with another AI Gateway: what is left out becomes the default, but our own settings stay, since
    Databricks' clients do not know them and a change of rate limits must not end the redaction of records.
    """
    before = endpoint.settings.get("ai_gateway", {})
    given = {name: value for name, value in body.items() if value is not None}
    kept = {name: before[name] for name in _OWN_GATEWAY if name in before}
    table = before.get("inference_table_config", {})
    kept_table = {name: table[name] for name in _OWN_TABLE if name in table}
    asked = _object(given.get("inference_table_config", {}), "inference_table_config")
    gateway = {**kept, **given}
    if kept_table or asked:
        gateway["inference_table_config"] = {**kept_table, **asked}
    return _settings(_merged(endpoint, ai_gateway=gateway), "ai_gateway")


def changed_rate_limits(endpoint: StoredEndpoint, body: Mapping[str, Any]) -> EndpointSettings:
    """The endpoint with other rate limits."""
    gateway = {**endpoint.settings.get("ai_gateway", {}), "rate_limits": body.get("rate_limits") or []}
    return _settings(_merged(endpoint, ai_gateway=gateway), "ai_gateway")


def changed_tags(endpoint: StoredEndpoint, body: Mapping[str, Any]) -> EndpointSettings:
    """The endpoint with tags added, replaced and removed."""
    for name in body:
        if name not in ("add_tags", "delete_tags"):
            raise Invalid("there is no such field here.", field=name, fix="Use add_tags and delete_tags.")
    tags = {tag["key"]: tag for tag in endpoint.settings.get("tags", [])}
    for index, key in enumerate(_list(body.get("delete_tags"), "delete_tags")):
        if not isinstance(key, str):
            raise Invalid("is not the key of a tag.", field=f"delete_tags[{index}]")
        tags.pop(key, None)
    for index, tag in enumerate(_list(body.get("add_tags"), "add_tags")):
        given = _object(tag, f"add_tags[{index}]")
        tags[str(given.get("key"))] = {name: value for name, value in given.items() if value is not None}
    return _settings(_merged(endpoint, tags=list(tags.values())), "")


def _merged(endpoint: StoredEndpoint, **changes: Any) -> dict[str, Any]:
    return with_secrets({**endpoint.settings, **changes}, endpoint.settings)


def _settings(given: Mapping[str, Any], prefix: str) -> EndpointSettings:
    """``prefix`` is the part of the settings that the client's body is, and so not a part of its fields' names."""
    try:
        return EndpointSettings.model_validate(given)
    except ValidationError as error:
        invalid = invalid_settings(error)
        field = (invalid.field or "").removeprefix(f"{prefix}.") if prefix else invalid.field
        raise Invalid(invalid.message, field=field, fix=invalid.fix) from error


def _config(body: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Served entities, routes and shadows, without what Databricks' clients send beside them."""
    given = _known(body, place)
    given.pop("name", None)
    given.pop("config_version", None)
    entities = given.get("served_entities")
    if entities is not None:
        field = _path(place, "served_entities")
        given["served_entities"] = [
            _entity(_object(entity, f"{field}[{index}]"), f"{field}[{index}]")
            for index, entity in enumerate(_list(entities, field))
        ]
    traffic = given.get("traffic_config")
    if isinstance(traffic, Mapping):
        routes = _list(traffic.get("routes"), _path(place, "traffic_config.routes"))
        given["traffic_config"] = {**traffic, "routes": [_route(route) for route in routes]}
    return given


def _route(route: Any) -> Any:
    if not isinstance(route, Mapping):
        return route
    old = route.get("served_model_name")
    given = {name: value for name, value in route.items() if name != "served_model_name"}
    return {"served_entity_name": old, **given} if old is not None else given


def _entity(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    entity = {
        name: value for name, value in _known(given, place).items() if name not in _COMPUTE | _SHOWN_ONLY
    }
    external = entity.get("external_model")
    if external is None and entity.get("backend") is None:
        raise Invalid(
            "servelens does not run models, so it must be told where this one answers.",
            field=place,
            fix="Give 'external_model', or 'backend': {'urls': ['http://gpu-1:8000']}.",
        )
    if external is not None:
        entity["external_model"] = _external(
            _object(external, f"{place}.external_model"), f"{place}.external_model"
        )
    if entity.get("name") is None:
        entity["name"] = _default_name(given)
    return entity


def _default_name(given: Mapping[str, Any]) -> str:
    external = given.get("external_model")
    if isinstance(external, Mapping):
        name = str(external.get("name"))
    else:
        parts = (given.get("entity_name"), given.get("entity_version"))
        name = "-".join(str(part) for part in parts if part) or "model"
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).lstrip("_.-")[:63] or "model"


def _external(given: Mapping[str, Any], place: str) -> dict[str, Any]:
    model = {name: value for name, value in given.items() if value is not None}
    for section, key in _PROVIDER_KEYS.items():
        if isinstance(model.get(section), Mapping):
            model[section] = _with_key(model[section], key, f"{place}.{section}")
    custom = model.get("custom_provider_config")
    if isinstance(custom, Mapping):
        field = f"{place}.custom_provider_config"
        if custom.get("api_key_auth") is not None:
            raise Invalid("is not offered.", field=f"{field}.api_key_auth", fix="Use 'bearer_token_auth'.")
        custom = {name: value for name, value in custom.items() if value is not None}
        if isinstance(custom.get("bearer_token_auth"), Mapping):
            auth = f"{field}.bearer_token_auth"
            custom["bearer_token_auth"] = _with_key(custom["bearer_token_auth"], "token", auth)
        model["custom_provider_config"] = custom
    return model


def _with_key(given: Mapping[str, Any], key: str, place: str) -> dict[str, Any]:
    """The reference to a secret, where Databricks has it in a field of its own, in that of the secret."""
    section = {name: value for name, value in given.items() if value is not None}
    reference = section.pop(key, None)
    if reference is None:
        return section
    if not isinstance(reference, str) or not is_reference(reference):
        raise Invalid(
            "is not a reference to a secret.",
            field=f"{place}.{key}",
            fix=f"Write {{{{secrets/scope/key}}}} here, or the key itself in '{key}_plaintext'.",
        )
    return {**section, f"{key}_plaintext": reference}


def _known(body: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What is given (null is not), less what cannot be taken here, which is refused."""
    given = {name: value for name, value in body.items() if value is not None}
    for name, reason in _NOT_HERE.items():
        if given.pop(name, None):
            raise Invalid(
                f"cannot be used: {reason}",
                field=_path(place, name),
                fix=_INSTEAD.get(name, "Leave it out."),
            )
    return given


def _fits(config: Mapping[str, Any]) -> bool:
    """Whether every route has its served entity."""
    names = {entity.get("name") for entity in config["served_entities"]}
    routes = (config.get("traffic_config") or {}).get("routes", [])
    return "traffic_config" not in config or all(route["served_entity_name"] in names for route in routes)


def _object(value: Any, field: str) -> Mapping[str, Any]:
    if value is None:
        raise InvalidSettings("is missing.", field=field, fix="Give it.")
    if not isinstance(value, Mapping):
        raise InvalidSettings("is not an object.", field=field)
    return value


def _list(value: Any, field: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidSettings("is not a list.", field=field)
    return value


def _path(place: str, name: str) -> str:
    return f"{place}.{name}" if place else name
