"""The settings of the scorer: the service that proxies ask whether a text is safe."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from servelens.section import Section


class ScorerSettings(Section):
    """The service behind the `safety` guardrail ([safety](safety.md))."""

    enabled: bool | None = Field(
        None,
        description="Whether `servelens up` runs one. Default: when an endpoint of this file has a `safety` guardrail and "
        "no `url` is given.",
    )
    url: str | None = Field(
        None, description="Where proxies find it, as `http://scorer:8054`. Default: at `host` and `port`."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8054, ge=1, le=65535, description="Port to listen on.")
    evaluator: str = Field(
        "toxicity",
        description="The evaluator that scores, built in or of an installed package; a high score is an unsafe text.",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="Options of the evaluator.")
    max_wait_ms: float = Field(
        3.0,
        ge=0,
        le=1000,
        description="Longest time that a text waits for others to be scored with it; none does while the model is at rest.",
    )
    max_batch: int = Field(64, ge=1, le=4096, description="Texts scored together, at the most.")
    max_queue: int = Field(2048, ge=1, description="Texts that may wait; more are answered 503 at once.")
    threads: int = Field(
        1, ge=1, le=256, description="Threads of one computation. The offline model is fastest with one."
    )

    @field_validator("url")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            parts = urlsplit(value)
            usable = parts.port is None or parts.port > 0
        except ValueError:
            usable = False
        if not usable or parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("is not an address. Write it as http://host:port.")
        return value

    @property
    def address(self) -> str:
        """Where proxies find the service."""
        if self.url is not None:
            return self.url.rstrip("/")
        local = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host)
        host = local or (f"[{self.host}]" if ":" in self.host else self.host)
        return f"http://{host}:{self.port}"
