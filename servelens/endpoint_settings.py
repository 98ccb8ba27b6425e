"""The settings of endpoints, in the shape of Databricks Model Serving."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

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


class BackendSettings(Section):
    """A model server of your own."""

    urls: list[str] = Field(
        min_length=1,
        description="Addresses of equal replicas, such as `http://gpu-1:8000`; one with a path is the API's base.",
    )
    api: Literal["openai", "mlflow"] = Field("openai", description="The wire format that the backend speaks.")
    model: str | None = Field(None, description="Model name to send. Default: the name that the client sent.")
    api_key: SecretStr | None = Field(
        None, description="Bearer token for the backend; write `${NAME}` to take it from the environment."
    )
    timeouts: TimeoutsSettings = Field(default_factory=TimeoutsSettings, description="Deadlines.")

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
    backend: BackendSettings = Field(description="Where it answers.")
    overrides: OverridesSettings = Field(
        default_factory=OverridesSettings, description="What it changes in a request."
    )


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


class EndpointConfigSettings(Section):
    """Served entities and routes."""

    served_entities: list[ServedEntitySettings] = Field(min_length=1, description="What can answer.")
    traffic_config: TrafficSettings | None = Field(
        None, description="The split. Default: all traffic to the only served entity."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        names = [entity.name for entity in self.served_entities]
        refuse_duplicates(names, "served_entities", "served entity")
        if self.traffic_config is None:
            if len(names) > 1:
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


class InferenceTableSettings(Section):
    """Names of the endpoint's tables."""

    catalog_name: Name | None = Field(None, description="Default: `tables.catalog`.")
    schema_name: Name | None = Field(None, description="Default: `tables.schema`.")
    table_name_prefix: Name | None = Field(None, description="Default: the endpoint's name.")


class AiGatewaySettings(Section):
    """What happens around the call."""

    inference_table_config: InferenceTableSettings = Field(
        default_factory=InferenceTableSettings, description="Where records go."
    )


class EndpointSettings(Section):
    """A name that apps call, and what answers for it."""

    name: Name = Field(description="What a client sends as `model`, or in the path.")
    config: EndpointConfigSettings = Field(description="Served entities and routes.")
    ai_gateway: AiGatewaySettings = Field(default_factory=AiGatewaySettings, description="Inference table.")
    payload_limit_bytes: int = Field(
        1024**2, ge=0, description="A request or response over this size is recorded without its body."
    )
