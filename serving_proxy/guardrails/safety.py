"""The guardrail ``safety`` of one worker: who is asked, what is remembered, what is counted.

Every text of a request is looked at, its history too, since nobody knows who wrote that. A conversation sends its history
again with each turn, so the scores of recent texts are remembered and not asked for again. A mirrored call is not looked at:
its request has been, and nobody hears its answer.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from servelens.clock import Clock
from serving_proxy.distribution import Histogram
from serving_proxy.guardrails.blocked import Blocked, Side
from serving_proxy.guardrails.output import has_text
from serving_proxy.guardrails.output_hold import AfterHold, AnswerHold, SentenceHold
from serving_proxy.guardrails.request_texts import RequestTexts
from serving_proxy.guardrails.safety_check import NOTHING_TO_SAY, Ask, SafetyCheck, says_something
from serving_proxy.guardrails.scorer_client import NotScored, Scored, ScorerClient
from serving_proxy.measurements import MAX_SERIES, OTHER, Measurements

if TYPE_CHECKING:
    from serving_proxy.relay import Relay

_REMEMBERED: Final = 8_192
_SECONDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class SafetyChecks:
    """On one event loop. ``url`` is the scorer's; nothing is sent there before an endpoint needs it."""

    def __init__(
        self, url: str, loop: asyncio.AbstractEventLoop, clock: Clock, measurements: Measurements
    ) -> None:
        self._client = ScorerClient(url, loop, clock)
        self._clock = clock
        self._recent: dict[bytes, Scored] = {}
        self._outcomes = measurements.counter(
            "servelens_safety_checks",
            "Checks by the scorer, by what became of the call: blocked, masked, flagged, passed, passed unchecked, or refused "
            "because it could not be checked",
            *("endpoint", "side", "outcome"),
        )
        self._failures = measurements.counter(
            "servelens_safety_failures", "Texts that were not checked, by the reason why", "side", "reason"
        )
        self._duration = measurements.histogram(
            Histogram(
                "servelens_safety_duration_seconds",
                "Time from a question to the scorer to its answer, or to giving up",
                ("side",),
                _SECONDS,
            )
        )

    @property
    def failing(self) -> str | None:
        """Why the scorer did not answer the last question, if it did not."""
        return self._client.failing

    async def screen_input(self, relay: Relay) -> None:
        """Look at a request; the relay's has its unsafe texts masked afterwards where that is configured. Raises Blocked,
        and Unchecked.
        """
        invocation = relay.invocation
        assert invocation is not None
        guardrails = invocation.endpoint.gateway.input_guardrails
        if guardrails is None or guardrails.safety is None:
            return
        check = SafetyCheck(guardrails.safety, "input", self._asking("input"), _marks(relay))
        texts = RequestTexts(invocation.kind, relay.request.body or b"")
        try:
            await check.look([text for text in texts.all() if says_something(text)])
            try:
                texts.treat(check.treat)
            except Blocked as blocked:
                blocked.fix = "Say it otherwise."
                raise
        finally:
            self._settle(invocation.endpoint.name, "input", check)
        relay.request.body = texts.encoded()

    def hold(self, relay: Relay) -> AnswerHold | None:
        """Who holds back an answer that begins now, if anybody does."""
        invocation = relay.invocation
        if invocation is None or relay.shadow_of is not None or not has_text(invocation.kind):
            return None
        endpoint = invocation.endpoint
        guardrails = endpoint.gateway.output_guardrails
        if guardrails is None or guardrails.safety is None:
            return None
        safety = guardrails.safety
        is_after = relay.is_stream and safety.streams == "after"
        if is_after:  # it has passed when it is looked at
            safety = replace(safety, action="flag", fails_open=True)
        check = SafetyCheck(safety, "output", self._asking("output"), _marks(relay))

        def settled(check: SafetyCheck) -> None:
            self._settle(endpoint.name, "output", check)

        if is_after:
            return AfterHold(check, relay, settled, stream_end=relay.request.head.target.stream_end)
        return SentenceHold(check, relay, settled)

    def tidy(self) -> None:
        """Close connections that nobody has used for a while. Called now and then."""
        self._client.tidy()

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def _asking(self, side: Side) -> Ask:
        async def ask(texts: list[str], timeout_s: float) -> list[Scored]:
            keys = [_key(text) for text in texts]
            known = {key: self._recent.pop(key) for key in dict.fromkeys(keys) if key in self._recent}
            self._recent.update(known)  # the last to be forgotten now
            new = [(key, text) for key, text in zip(keys, texts, strict=True) if key not in known]
            if new:
                answers = await self._ask([text for _, text in new], timeout_s, side)
                known.update(zip((key for key, _ in new), answers, strict=True))
            return [known[key] for key in keys]

        return ask

    async def _ask(self, texts: list[str], timeout_s: float, side: Side) -> list[Scored]:
        version = self._client.version
        began_s = self._clock.monotonic()
        try:
            answers = await self._client.score(texts, timeout_s)
        except NotScored as failure:
            key = (side, failure.reason)
            self._failures[key] = self._failures.get(key, 0) + 1
            raise
        finally:
            self._duration.observe(self._clock.monotonic() - began_s, side)
        if self._client.version != version:  # another model has come
            self._recent.clear()
        for text, scored in zip(texts, answers, strict=True):
            if scored.reason is None or scored.reason in NOTHING_TO_SAY:
                self._recent[_key(text)] = scored
        while len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]
        return answers

    def _settle(self, endpoint: str, side: Side, check: SafetyCheck) -> None:
        key = (endpoint, side, check.outcome)
        if key not in self._outcomes and len(self._outcomes) >= MAX_SERIES:
            key = (OTHER, side, check.outcome)
        self._outcomes[key] = self._outcomes.get(key, 0) + 1


def _marks(relay: Relay) -> dict[str, str]:
    if relay.marks is None:
        relay.marks = {}
    return relay.marks


def _key(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
