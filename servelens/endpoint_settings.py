"""The settings of endpoints, in the shape of Databricks Model Serving."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from servelens.external_model_settings import ExternalModelSettings
from servelens.gateway_settings import AiGatewaySettings
from servelens.section import Name, Percentage, Positive, Section, refuse_duplicates


class TimeoutsSettings(Section):
    """Deadlines of one call to a backend, in seconds."""

    connect_s: Positive = Field(2.0, description="To open a connection.")
    first_byte_s: Positive = Field(120.0, description="From the request to the first byte of the answer.")
    idle_s: Positive = Field(60.0, description="Between two chunks of an answer.")
    total_s: Positive = Field(600.0, description="For the whole call.")


class OverridesSettings(Section):
    """What a served entity changes in a request, so that one backend can serve several variants."""

    system_prompt: str | None = Field(None, description="Replaces the system message of a chat.")
    body: dict[str, Any] = Field(
        default_factory=dict, description="Fields set in the request body, for example `temperature: 0.2`."
    )


class HealthCheckSettings(Section):
    """When a replica counts as well."""

    path: str | None = Field(
        None,
        pattern=r"^/[!-~]*$",
        description="`GET` this, for example `/health`. Default: no active checks.",
    )
    interval_s: Positive = Field(5.0, description="Seconds between two checks.")
    timeout_s: Positive = Field(2.0, description="A check that takes longer has failed.")
    down_after: int = Field(2, ge=1, description="Failed checks in a row after which a replica is down.")
    up_after: int = Field(1, ge=1, description="Good checks in a row after which it is up again.")
    eject_after: int = Field(
        3, ge=1, description="Failed calls in a row after which a replica gets none for a while."
    )
    ejection_s: Positive = Field(5.0, description="For how long; doubled each time, up to ten times that.")


class RetriesSettings(Section):
    """When a call is sent again, which happens only while the client has seen nothing of an answer."""

    attempts: int = Field(3, ge=1, le=10, description="Attempts in all, the first included.")
    base_s: Positive = Field(0.025, description="Upper end of the first random wait; doubled each time.")
    max_s: Positive = Field(2.0, description="Longest wait. A longer `Retry-After` ends the retries.")
    budget: float = Field(
        0.2, ge=0, le=1, description="Retries are no more than this share of the calls of late."
    )


class PoolSettings(Section):
    """Bounds on connections to one replica, per worker."""

    max_connections: int = Field(1024, ge=1, description="Calls at once per replica.")
    max_queue: int = Field(1024, ge=0, description="Calls that may wait for a free replica; more get 429.")
    queue_s: Positive = Field(10.0, description="Longest wait for a free replica.")


class BackendSettings(Section):
    """A model server of your own."""

    urls: list[str] = Field(
        min_length=1,
        description="Addresses of equal replicas, such as `http://gpu-1:8000`; one with a path is the API's base.",
    )
    api: Literal["openai", "anthropic", "mlflow", "kserve", "cohere", "ai21labs"] = Field(
        "openai", description="The wire format that the backend speaks; another one's clients are translated."
    )
    model: str | None = Field(None, description="Model name to send. Default: the name that the client sent.")
    api_key: SecretStr | None = Field(
        None, description="Key for the backend; write `${NAME}` to take it from the environment."
    )
    timeouts: TimeoutsSettings = Field(default_factory=TimeoutsSettings, description="Deadlines.")
    health: HealthCheckSettings = Field(
        default_factory=HealthCheckSettings, description="Health of replicas."
    )
    retries: RetriesSettings = Field(default_factory=RetriesSettings, description="Retries.")
    pool: PoolSettings = Field(default_factory=PoolSettings, description="Connections.")

    @field_validator("urls")
    @classmethod
    def _addresses(cls, urls: list[str]) -> list[str]:
        for url in urls:
            if not re.fullmatch(r"https?://[^/\s]+(/[^\s]*)?", url):
                raise ValueError(f"'{url}' is not a backend address. Write http://HOST:PORT.")
        return urls


class ServedEntitySettings(Section):
    """A model version behind an address."""

    name: Name = Field(description="Name of the served entity, unique in its endpoint.")
    entity_version: str = Field("1", description="Version of the model, kept on every record.")
    backend: BackendSettings | None = Field(None, description="A model server of your own.")
    external_model: ExternalModelSettings | None = Field(
        None, description="A provider's model, in Databricks' shape. Give this or `backend`."
    )
    overrides: OverridesSettings = Field(
        default_factory=OverridesSettings, description="What it changes in a request."
    )

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.backend is None) == (self.external_model is None):
            raise ValueError("backend: give either 'backend' or 'external_model', not both and not none.")
        return self


class RouteSettings(Section):
    """A share of the traffic for one served entity."""

    served_entity_name: str = Field(description="A name in `served_entities`.")
    traffic_percentage: Percentage = Field(
        description="Share of the units, in percent. All routes add up to 100."
    )


class TrafficSettings(Section):
    """How the traffic is split."""

    routes: list[RouteSettings] = Field(
        min_length=1, description="One route per served entity that gets traffic."
    )


class ShadowSettings(Section):
    """A served entity that is asked as well, for the record alone."""

    served_entity_name: str = Field(description="A name in `served_entities`.")
    percentage: Percentage = Field(100.0, description="Share of the calls that is mirrored, in percent.")
    max_concurrency: int = Field(
        16, ge=1, description="Mirrored calls at once, per worker; more are left out."
    )
    timeout_s: Positive = Field(60.0, description="Longest mirrored call, in seconds.")


class EndpointConfigSettings(Section):
    """Served entities and routes."""

    served_entities: list[ServedEntitySettings] = Field(min_length=1, description="What can answer.")
    traffic_config: TrafficSettings | None = Field(
        None, description="The split. Default: all traffic to the only served entity."
    )
    shadows: list[ShadowSettings] = Field(default_factory=list, description="Mirrored traffic.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        names = [entity.name for entity in self.served_entities]
        refuse_duplicates(names, "served_entities", "served entity")
        for index, shadow in enumerate(self.shadows):
            if shadow.served_entity_name not in names:
                raise ValueError(
                    f"shadows[{index}].served_entity_name: there is no served entity "
                    f"'{shadow.served_entity_name}'. Use one of: {', '.join(names)}."
                )
        if self.traffic_config is None:
            shadows = {shadow.served_entity_name for shadow in self.shadows}
            if len([name for name in names if name not in shadows]) != 1:
                raise ValueError("traffic_config: is missing. Give every served entity a route, in percent.")
            return self
        for index, route in enumerate(self.traffic_config.routes):
            if route.served_entity_name not in names:
                raise ValueError(
                    f"traffic_config.routes[{index}].served_entity_name: there is no served entity "
                    f"'{route.served_entity_name}'. Use one of: {', '.join(names)}."
                )
        routed = [route.served_entity_name for route in self.traffic_config.routes]
        refuse_duplicates(routed, "traffic_config.routes", "route to")
        total = sum(route.traffic_percentage for route in self.traffic_config.routes)
        if abs(total - 100) > 1e-9:
            raise ValueError(
                f"traffic_config.routes: traffic_percentage adds up to {total:g}, not 100. "
                "Change the shares so that they add up to 100."
            )
        return self


class TagSettings(Section):
    """A label of the endpoint."""

    key: str = Field(min_length=1, max_length=127, description="Name of the tag.")
    value: str = Field("", max_length=255, description="Its value.")


class EndpointSettings(Section):
    """A name that apps call, and what answers for it."""

    name: Name = Field(description="What a client sends as `model`, or in the path.")
    config: EndpointConfigSettings = Field(description="Served entities and routes.")
    ai_gateway: AiGatewaySettings = Field(
        default_factory=AiGatewaySettings, description="What happens around a call."
    )
    tags: list[TagSettings] = Field(default_factory=list, description="Labels of the endpoint.")
    payload_limit_bytes: int = Field(
        1024**2, ge=0, description="A request or response over this size is recorded without its body."
    )
