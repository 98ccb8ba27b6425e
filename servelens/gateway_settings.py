"""The settings of what happens around a call, in the shape of Databricks' ``ai_gateway``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from servelens.section import Name, Positive, Section


class InferenceTableSettings(Section):
    """The endpoint's tables, and what of a call goes into them."""

    catalog_name: Name | None = Field(None, description="Default: `tables.catalog`.")
    schema_name: Name | None = Field(None, description="Default: `tables.schema`.")
    table_name_prefix: Name | None = Field(None, description="Default: the endpoint's name.")
    enabled: bool = Field(True, description="`false` is the same as `payload_logging: off`.")
    payload_logging: Literal["full", "metadata", "off"] = Field(
        "full", description="Records with bodies (`full`), without them (`metadata`), or none at all (`off`)."
    )
    sampling_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the calls that is recorded, chosen by a hash of the request id.",
    )
    retention_days: int | None = Field(
        None,
        ge=1,
        description="Records, scores and feedback of requests that are more days old leave the tables. Default: they are "
        "kept.",
    )
    redact_paths: list[str] = Field(
        default_factory=list,
        description="JSON paths whose values never reach a record, such as `$.user` or `$.messages[*].name`.",
    )

    redact_headers: list[str] = Field(
        default_factory=list,
        description="Headers of which nothing is recorded: `traceparent`, `x-session-id`, `x-client-request-id`, "
        "`x-servelens-unit`, `x-servelens-tags` (no other header ever is).",
    )
    pseudonym_key: SecretStr | None = Field(
        None,
        max_length=64,
        description="Secret that keeps the pseudonyms of hidden units from being guessed; write `${NAME}`.",
    )

    @field_validator("payload_logging", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return "off" if value is False else value  # what YAML makes of an unquoted off


class FallbackSettings(Section):
    """Who answers when a served entity cannot."""

    enabled: bool = Field(
        False, description="Ask the other served entities, in their order, when one cannot answer."
    )


class PiiSettings(Section):
    """What happens to personal data."""

    behavior: Literal["NONE", "BLOCK", "MASK"] = Field(
        "NONE", description="Refuse the call, replace the data by its kind, or neither."
    )


class GuardrailSideSettings(Section):
    """What is looked for on one side of a call."""

    invalid_keywords: list[str] = Field(
        default_factory=list, description="Words that block a call: whole words, in any case."
    )
    pii: PiiSettings = Field(default_factory=PiiSettings, description="Personal data.")
    safety: Literal[False] = Field(False, description="Not offered; score `toxicity` instead.")
    valid_topics: list[str] = Field(default_factory=list, max_length=0, description="Not offered.")


class GuardrailsSettings(Section):
    """What must not pass."""

    input: GuardrailSideSettings | None = Field(None, description="In requests.")
    output: GuardrailSideSettings | None = Field(None, description="In answers, streams included.")


class RateLimitSettings(Section):
    """How much one may call."""

    calls: int | None = Field(None, ge=0, description="Calls per minute.")
    tokens: int | None = Field(None, ge=0, description="Tokens per minute, in and out.")
    key: Literal["endpoint", "user", "service_principal"] = Field(
        "endpoint", description="For the endpoint as a whole, or for each API key."
    )
    principal: str | None = Field(None, description="Name of the one API key that it is for.")
    renewal_period: Literal["minute"] = Field("minute", description="The period, a sliding minute.")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.calls is None) == (self.tokens is None):
            raise ValueError("calls: give either 'calls' or 'tokens', not both and not none.")
        return self


class UsageTrackingSettings(Section):
    """Counting of tokens."""

    enabled: bool = Field(True, description="Count tokens by requester in `/metrics`.")


class ConcurrencySettings(Section):
    """How many calls at once."""

    max_concurrency: int | None = Field(
        None, ge=1, description="Calls at once per worker. Default: no bound."
    )
    max_queue: int = Field(256, ge=0, description="Calls that may wait; more are answered 429 at once.")
    queue_s: Positive = Field(10.0, description="Longest wait.")


class AiGatewaySettings(Section):
    """What happens around the call."""

    inference_table_config: InferenceTableSettings = Field(
        default_factory=InferenceTableSettings, description="Where records go."
    )
    fallback_config: FallbackSettings = Field(default_factory=FallbackSettings, description="Fallback.")
    guardrails: GuardrailsSettings = Field(default_factory=GuardrailsSettings, description="Guardrails.")
    rate_limits: list[RateLimitSettings] = Field(default_factory=list, description="Rate limits.")
    usage_tracking_config: UsageTrackingSettings = Field(
        default_factory=UsageTrackingSettings, description="Token counts."
    )
    concurrency: ConcurrencySettings = Field(
        default_factory=ConcurrencySettings, description="Bounds on calls at once."
    )
