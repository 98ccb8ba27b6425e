"""An endpoint's settings as they are stored and shown: JSON with the secrets, and JSON with a mask in their place.

A secret can be a reference (:mod:`servelens.secret_references`): it is stored and shown as it is, and each worker takes its
value from its environment. Any other secret is stored as it is given, so that every worker can serve with it, and is only
ever shown as a mask.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from pydantic import SecretStr

from servelens.endpoint_settings import EndpointSettings
from servelens.errors import InvalidSettings
from servelens.secret_references import MASK, Secrets, is_reference

_ADDRESSES: Final = (
    "urls",
    "provider",
    "openai_api_base",
    "openai_api_type",
    "cohere_api_base",
    "anthropic_api_base",
    "ai21labs_api_base",
    "custom_provider_url",
)


def to_json(settings: EndpointSettings) -> dict[str, Any]:
    """What was given, secrets included, as plain JSON values."""
    return _plain(settings, lambda secret: secret)


def masked(settings: EndpointSettings) -> dict[str, Any]:
    """What was given, with a mask for every secret that is not a reference."""
    return _plain(settings, lambda secret: secret if is_reference(secret) else MASK)


def digest(stored: Mapping[str, Any]) -> str:
    """The same for equal settings, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


def with_secrets(given: dict[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` with each mask replaced by the secret that is ``stored`` at its place.

    A client that reads an endpoint and writes it back need not know its secrets. Served entities are found by their
    names. Raises :class:`~servelens.errors.InvalidSettings` when there is no such secret, or when its entity answers
    from another address now: a secret must not be sent where its owner did not send it.
    """
    known = {
        str(entity.get("name")): entity
        for entity in stored.get("config", {}).get("served_entities", [])
        if isinstance(entity, dict)
    }
    config = dict(given.get("config") or {})
    entities = config.get("served_entities")
    if not isinstance(entities, list):
        return given
    config["served_entities"] = [
        _restored(entity, known.get(str(entity.get("name"))), f"config.served_entities[{index}]")
        if isinstance(entity, dict)
        else entity
        for index, entity in enumerate(entities)
    ]
    return {**given, "config": config}


def _restored(entity: dict[str, Any], known: Mapping[str, Any] | None, field: str) -> dict[str, Any]:
    if not _has_mask(entity):
        return entity
    if known is None or _addresses(entity) != _addresses(known):
        raise InvalidSettings(
            f"'{MASK}' stands for a secret that this served entity, at this address, does not have.",
            field=field,
            fix="Give the secret itself, or a reference such as {{secrets/scope/key}}.",
        )
    filled: dict[str, Any] = _filled(entity, known, field)
    return filled


def _filled(value: Any, known: Any, field: str) -> Any:
    if isinstance(value, dict):
        there = known if isinstance(known, dict) else {}
        return {name: _filled(item, there.get(name), f"{field}.{name}") for name, item in value.items()}
    if value != MASK:
        return value
    if not isinstance(known, str):
        raise InvalidSettings(
            f"'{MASK}' stands for a secret that is not stored.",
            field=field,
            fix="Give the secret itself, or a reference such as {{secrets/scope/key}}.",
        )
    return known


def _has_mask(value: Any) -> bool:
    if isinstance(value, dict):
        return any(_has_mask(item) for item in value.values())
    return bool(value == MASK)


def _addresses(value: Any) -> list[Any]:
    """Everything in a served entity that says where it answers, in a fixed order."""
    found: list[Any] = []
    if isinstance(value, Mapping):
        for name in sorted(value):
            if name in _ADDRESSES:
                found.append((name, value[name]))
            else:
                found += _addresses(value[name])
    return found


def resolved(settings: EndpointSettings, secrets: Secrets) -> EndpointSettings:
    """The same settings without references. Raises InvalidSettings for one that has no value here."""
    return EndpointSettings.model_validate(
        _plain(settings, lambda secret: secrets.resolve(secret, "config.served_entities"))
    )


def _plain(settings: EndpointSettings, show: Callable[[str], str]) -> dict[str, Any]:
    def default(value: object) -> str:
        if isinstance(value, SecretStr):
            return show(value.get_secret_value())
        raise TypeError(f"{type(value).__name__} is not JSON")

    dumped = settings.model_dump(by_alias=True, exclude_unset=True)
    plain: dict[str, Any] = json.loads(json.dumps(dumped, default=default))
    return plain
