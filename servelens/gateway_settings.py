"""The settings of what happens around a call, in the shape of Databricks' ``ai_gateway``."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import (
    Field,
    SecretStr,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_validator,
)

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


class SafetySettings(Section):
    """Texts that the scorer finds unsafe ([safety](safety.md))."""

    action: Literal["block", "mask", "flag"] = Field(
        "block",
        description="Refuse the call, replace the message or sentence by `<UNSAFE>`, or only say so on the record.",
    )
    threshold: float = Field(0.5, gt=0, le=1, description="From this score on a text is unsafe.")
    on_failure: Literal["open", "closed"] | None = Field(
        None,
        description="When the scorer does not answer: let the call pass unchecked (`open`), or answer 503 (`closed`). "
        "Default: `closed`, but `open` for `action: flag`.",
    )
    timeout_ms: float = Field(200.0, gt=0, le=60_000, description="Longest wait for the scorer.")
    streams: Literal["sentence", "after"] = Field(
        "sentence",
        description="Of the output: streams are let go sentence by sentence, each after it is scored, or pass at once and "
        "are scored at their end, which can only flag them.",
    )

    @property
    def fails_open(self) -> bool:
        """Whether a call passes that could not be checked."""
        return (self.on_failure or ("open" if self.action == "flag" else "closed")) == "open"


class GuardrailSideSettings(Section):
    """What is looked for on one side of a call."""

    invalid_keywords: list[str] = Field(
        default_factory=list, description="Words that block a call: whole words, in any case."
    )
    pii: PiiSettings = Field(default_factory=PiiSettings, description="Personal data.")
    safety: SafetySettings | None = Field(
        None,
        description="Texts that the [scorer](safety.md) finds unsafe. `true` is this section with its defaults: they are "
        "blocked.",
    )
    valid_topics: list[str] = Field(default_factory=list, max_length=0, description="Not offered.")

    @field_validator("safety", mode="before")
    @classmethod
    def _as_databricks_has_it(cls, value: object) -> object:
        return ({} if value else None) if isinstance(value, bool) else value

    @field_serializer("safety", mode="wrap")
    def _as_it_was_given(
        self, value: SafetySettings | None, handler: SerializerFunctionWrapHandler
    ) -> object:
        return False if value is None else handler(value) or True


class GuardrailsSettings(Section):
    """What must not pass."""

    input: GuardrailSideSettings | None = Field(None, description="In requests.")
    output: GuardrailSideSettings | None = Field(None, description="In answers, streams included.")

    @property
    def ask_scorer(self) -> bool:
        """Whether the scorer is needed for them."""
        return any(side is not None and side.safety is not None for side in (self.input, self.output))


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
