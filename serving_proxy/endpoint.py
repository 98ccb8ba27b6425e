"""What the proxy serves: endpoints, their served entities, the backends behind them and the traffic split.

Frozen: a change of configuration makes a new snapshot and never edits one in use. Contradictions are
refused when the objects are built, with the key and the fix in the message, so the hot path need not
check again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from types import MappingProxyType
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from servelens.errors import InvalidSettings
from serving_proxy.gateway import Gateway, GuardrailAction, Guardrails, RateLimit, Safety, Shadow
from serving_proxy.guardrails.screen import screen_of
from serving_proxy.privacy import Privacy

__all__ = [
    "Backend",
    "BackendApi",
    "Endpoint",
    "Gateway",
    "GuardrailAction",
    "Guardrails",
    "HealthCheck",
    "Overrides",
    "Pool",
    "RateLimit",
    "Retries",
    "Route",
    "Safety",
    "ServedEntity",
    "Shadow",
    "Timeouts",
]

BackendApi = Literal["openai", "anthropic", "mlflow", "kserve", "cohere", "ai21labs"]

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_RESERVED_FIELDS: Final = ("model", "stream", "messages", "prompt")
_NO_BODY: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of one attempt, in seconds: connect, first byte of the answer, between chunks, the whole."""

    connect_s: float = 2.0
    first_byte_s: float = 120.0
    idle_s: float = 60.0
    total_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Overrides:
    """What a served entity changes in the client's request.

    ``body`` sets top-level fields (``None`` removes one). ``system_prompt`` replaces the conversation's
    first system or developer message, or is put first when there is none; completions have no
    conversation and are left alone.
    """

    body: Mapping[str, Any] = field(default_factory=lambda: _NO_BODY)
    system_prompt: str | None = None

    def __post_init__(self) -> None:
        for key in _RESERVED_FIELDS:
            if key in self.body:
                raise InvalidSettings(
                    f"an override cannot set {key!r}",
                    field=f"overrides.body.{key}",
                    fix="Set backend.model or overrides.system_prompt instead, or leave it to the client.",
                )


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """When a replica counts as well. Actively: ``GET path`` every ``interval_s`` (none without a path), down
    after ``down_after`` failures in a row and up again after ``up_after`` successes. Passively: a replica that
    fails ``eject_after`` calls in a row gets none for ``ejection_s``, doubled each time up to ten times that.
    """

    path: str | None = None
    interval_s: float = 5.0
    timeout_s: float = 2.0
    down_after: int = 2
    up_after: int = 1
    eject_after: int = 3
    ejection_s: float = 5.0


@dataclass(frozen=True, slots=True)
class Retries:
    """When a call is sent again: at most ``attempts`` in all, waiting between ``base_s`` and ``max_s`` with
    full jitter (or as ``Retry-After`` says, if that is not longer than ``max_s``), and only as long as retries
    are no more than ``budget`` of the calls of late.
    """

    attempts: int = 3
    base_s: float = 0.025
    max_s: float = 2.0
    budget: float = 0.2


@dataclass(frozen=True, slots=True)
class Pool:
    """Bounds on one replica, per worker: calls at once, and how many calls may wait for their turn and for
    how long, over all replicas of the entity.
    """

    max_connections: int = 1024
    max_queue: int = 1024
    queue_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Backend:
    """Where a served entity runs: equal replicas at ``urls``, speaking ``api``.

    A url without a path gets the api's own (``http://gpu1:8000`` serves ``/v1/chat/completions``); a url
    with one is the api's base, as an OpenAI client's ``base_url`` (``https://api.example/openai/v1``).
    ``model`` is the backend's own model name, sent instead of the client's; ``api_key`` is sent the way the api
    wants it.
    """

    urls: tuple[str, ...]
    api: BackendApi = "openai"
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    health: HealthCheck = field(default_factory=HealthCheck)
    retries: Retries = field(default_factory=Retries)
    pool: Pool = field(default_factory=Pool)

    def __post_init__(self) -> None:
        if not self.urls:
            raise InvalidSettings(
                "a backend needs an address", field="backend.urls", fix="Give at least one."
            )
        for url in self.urls:
            if not _is_address(url):
                raise InvalidSettings(
                    f"{url!r} is not an address of a backend",
                    field="backend.urls",
                    fix="Use http://host:port or https://host/base/path.",
                )
        key = self.api_key
        if key is not None and not (key.isascii() and key.isprintable()):
            raise InvalidSettings(
                "the key contains characters that cannot be sent in a header",
                field="backend.api_key",
                fix="Remove line breaks and characters beyond ASCII.",
            )


@dataclass(frozen=True, slots=True)
class ServedEntity:
    """A model version behind an address. ``id`` is what the table keeps as ``served_entity_id``."""

    name: str
    backend: Backend
    entity_version: str | None = None
    id: str | None = None
    overrides: Overrides = field(default_factory=Overrides)

    def __post_init__(self) -> None:
        _check_name(self.name, "served_entities.name")


@dataclass(frozen=True, slots=True)
class Route:
    """A share of the endpoint's traffic, in percent, for one served entity."""

    served_entity: str
    traffic_percentage: float


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A name that applications call. ``payload_limit_bytes`` bounds each of the two bodies kept on the
    record; ``config_version`` counts the changes of its configuration.
    """

    name: str
    served_entities: tuple[ServedEntity, ...]
    routes: tuple[Route, ...]
    payload_limit_bytes: int = 1 << 20
    config_version: int = 1
    gateway: Gateway = field(default_factory=Gateway)
    shadows: tuple[Shadow, ...] = ()
    entities: Mapping[str, ServedEntity] = field(init=False, repr=False, compare=False)
    """The served entities by name."""
    privacy: Privacy = field(init=False, repr=False, compare=False)
    """What of an invocation may be recorded."""
    is_screened: bool = field(init=False, repr=False, compare=False)
    """Whether there is anything to ask before an invocation may be forwarded."""
    asks_scorer: bool = field(init=False, repr=False, compare=False)
    """Whether the scorer looks at requests before they are forwarded."""
    split: tuple[tuple[float, ServedEntity, float], ...] = field(init=False, repr=False, compare=False)
    """Upper edge in (0, 1], entity and share of each route that gets traffic."""

    def __post_init__(self) -> None:
        _check_name(self.name, "endpoints.name")
        gateway = self.gateway
        self._derive("entities", {entity.name: entity for entity in self.served_entities})
        self._derive("privacy", Privacy(gateway))
        self._derive("is_screened", bool(gateway.rate_limits or gateway.input_guardrails))
        before = gateway.input_guardrails
        self._derive("asks_scorer", before is not None and before.safety is not None)
        if before is not None:  # here, because the first takes 0.2 s
            screen_of(before, "input")
        if gateway.output_guardrails is not None:
            screen_of(gateway.output_guardrails, "output")
        for shadow in self.shadows:
            if shadow.served_entity not in self.entities:
                raise InvalidSettings(
                    f"endpoint {self.name!r} mirrors to {shadow.served_entity!r}, which it does not have",
                    field="shadows.served_entity_name",
                    fix=f"Use one of: {', '.join(self.entities)}.",
                )
        if len(self.entities) != len(self.served_entities):
            raise InvalidSettings(
                f"endpoint {self.name!r} has two served entities of one name",
                field="served_entities",
                fix="Rename one of them.",
            )
        for route in self.routes:
            if route.served_entity not in self.entities:
                raise InvalidSettings(
                    f"endpoint {self.name!r} routes to {route.served_entity!r}, which it does not have",
                    field="routes.served_entity",
                    fix=f"Use one of: {', '.join(self.entities)}.",
                )
        total = sum(route.traffic_percentage for route in self.routes)
        if abs(total - 100.0) > 1e-6 or any(route.traffic_percentage < 0 for route in self.routes):
            raise InvalidSettings(
                f"the traffic of endpoint {self.name!r} adds up to {total:g} %",
                field="routes.traffic_percentage",
                fix="Make the shares add up to 100, none below 0.",
            )
        self._derive("split", _split(self.routes, self.entities))

    def _derive(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)


def _split(
    routes: Iterable[Route], entities: Mapping[str, ServedEntity]
) -> tuple[tuple[float, ServedEntity, float], ...]:
    used = [route for route in routes if route.traffic_percentage > 0]
    edges = accumulate(route.traffic_percentage / 100.0 for route in used)
    return tuple(
        (edge, entities[route.served_entity], route.traffic_percentage / 100.0)
        for edge, route in zip(edges, used, strict=True)
    )


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        usable = parts.port is None or parts.port > 0
    except ValueError:
        return False
    plain = url.isascii() and url.isprintable() and " " not in url
    return plain and usable and parts.scheme in ("http", "https") and bool(parts.hostname)


def _check_name(name: str, field_name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InvalidSettings(
            f"{name!r} is not a usable name",
            field=field_name,
            fix="Use 1 to 63 letters, digits, '_', '.' or '-', beginning with a letter or digit.",
        )
