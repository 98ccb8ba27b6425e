"""What is done around the calls of an endpoint, as configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from servelens.errors import InvalidSettings

PayloadLogging = Literal["full", "metadata", "off"]
GuardrailAction = Literal["block", "mask"]
SafetyAction = Literal["block", "mask", "flag"]


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``calls`` or ``tokens`` (one of the two) a minute for the whole endpoint, for each requester
    (``user``), or for the one requester named ``principal``.
    """

    key: Literal["endpoint", "user"]
    calls: int | None = None
    tokens: int | None = None
    principal: str | None = None
    period_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Safety:
    """What becomes of a text whose score is ``threshold`` or more, and of a call (``fails_open``: it passes) when the
    scorer has not answered within ``timeout_s``. ``streams``: let go by the sentence, or looked at afterwards.
    """

    action: SafetyAction = "block"
    threshold: float = 0.5
    fails_open: bool = False
    timeout_s: float = 0.2
    streams: Literal["sentence", "after"] = "sentence"


@dataclass(frozen=True, slots=True)
class Guardrails:
    """What is looked for in one side of a call: words (whole words, case ignored), personal data, and what the
    scorer finds unsafe. Words block; what personal data does is said by ``pii``.
    """

    invalid_keywords: tuple[str, ...] = ()
    pii: GuardrailAction | None = None
    safety: Safety | None = None

    @property
    def look_inside(self) -> bool:
        """Whether there is anything that the proxy looks for by itself."""
        return bool(self.invalid_keywords or self.pii)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A share of the invocations, in percent, that is mirrored to a served entity nobody hears. At most
    ``max_concurrency`` mirrors are under way in a worker, none of them longer than ``timeout_s``.
    """

    served_entity: str
    percentage: float = 100.0
    max_concurrency: int = 16
    timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.percentage <= 100.0:
            raise InvalidSettings(
                f"{self.percentage:g} is not a share in percent",
                field="shadows.percentage",
                fix="Use a number from 0 to 100.",
            )
        for name, value in (("max_concurrency", self.max_concurrency), ("timeout_s", self.timeout_s)):
            if not value > 0:
                raise InvalidSettings(
                    f"{value:g} is too little", field=f"shadows.{name}", fix="Use more than 0."
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gateway:
    """What is done around the calls of an endpoint (Databricks' ``ai_gateway``, and ours).

    ``fallback``: an entity that cannot answer is followed by the next in the order of ``served_entities``.
    ``sampling_fraction`` of the invocations is recorded, chosen by a hash of the id. ``redact_paths`` are JSON
    paths (``$.user``, ``$.messages[*].name``) whose values never reach the record, ``redact_headers`` the headers
    that do not; ``pseudonym_key`` keeps the pseudonym of a hidden unit from being guessed. ``max_concurrency`` calls at
    once (per worker); ``max_queue`` more may wait for ``queue_s``.
    """

    fallback: bool = False
    rate_limits: tuple[RateLimit, ...] = ()
    input_guardrails: Guardrails | None = None
    output_guardrails: Guardrails | None = None
    payload_logging: PayloadLogging = "full"
    sampling_fraction: float = 1.0
    redact_paths: tuple[str, ...] = ()
    redact_headers: tuple[str, ...] = ()
    pseudonym_key: bytes = field(default=b"", repr=False)
    max_concurrency: int | None = None
    max_queue: int = 256
    queue_s: float = 10.0
    usage_tracking: bool = True
