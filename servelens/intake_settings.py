"""The settings of the other ways in."""

from __future__ import annotations

from pydantic import Field

from servelens.section import Positive, Section


class IntakeSettings(Section):
    """Records of models that are not behind the proxy: CloudEvents of KServe's logger and OTLP traces, by HTTP."""

    enabled: bool = Field(False, description="Whether the collector listens for them.")
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Beyond this machine only once there are API keys."
    )
    port: int = Field(8053, ge=0, le=65535, description="Port to listen on.")
    max_body_bytes: int = Field(
        20 * 1024**2,
        ge=1024,
        description="Largest request body, also decompressed; a larger one is answered 413.",
    )
    join_timeout_s: Positive = Field(
        300.0,
        le=86_400,
        description="Seconds that a request or a response waits for its other half, before it becomes a record alone.",
    )
    duplicate_window_s: Positive = Field(
        3_600.0,
        le=7 * 86_400,
        description="Seconds for which an event that comes again is known, and left out.",
    )
    endpoints: dict[str, str] = Field(
        default_factory=dict,
        description="Where events belong whose sender is not called as the endpoint: InferenceService (`name` or "
        "`namespace/name`) or `service.name` of traces → endpoint.",
    )
