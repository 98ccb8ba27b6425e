"""Asks the scorer for scores of texts, over connections that stay open.

Invariants: a question ends within its time, and there are never more than MAX_ASKING under way in a worker; an answer is
taken only when it has one score per text. After five failures in a row nobody waits any more: one question a second finds
out whether the scorer is back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from servelens.clock import Clock
from servelens.errors import InvalidSettings, Unavailable
from serving_proxy.circuit_breaker import CircuitBreaker
from serving_proxy.fetch import fetch
from serving_proxy.replicas import Replica

logger = logging.getLogger(__name__)

MAX_ASKING: Final = 256
MAX_TEXTS: Final = 1_024
MAX_BODY_BYTES: Final = 1 << 20
_MAX_IDLE: Final = 64
_IDLE_S: Final = 60.0
_PROBE_S: Final = 1.0
_HEADERS: Final = ((b"content-type", b"application/json"),)

Failing = Literal[
    "timeout", "unreachable", "down", "overloaded", "invalid", "too_long", "unscored", "unreadable"
]
WORDS: Final[dict[Failing, str]] = {
    "timeout": "the scorer did not answer in time",
    "unreachable": "the scorer cannot be reached",
    "down": "the scorer has not answered for some time",
    "overloaded": "the scorer has too much to do",
    "invalid": "the scorer's answer makes no sense",
    "too_long": "there is more text than the scorer takes",
    "unscored": "the scorer's model failed",
    "unreadable": "it cannot be read",
}


class Scored(NamedTuple):
    """The scorer's word on a text: a score, or the reason why it has none."""

    score: float | None
    reason: str | None = None


class NotScored(Exception):
    """There is no answer; ``reason`` says why in a word."""

    def __init__(self, reason: Failing) -> None:
        self.reason: Failing = reason
        super().__init__(WORDS[reason])


class _Score(msgspec.Struct):
    score: float | None = None
    unscored_reason: str | None = None


class _Answer(msgspec.Struct):
    scores: list[_Score]
    version: str = ""


_decode = msgspec.json.Decoder(_Answer).decode
_encode = msgspec.json.Encoder().encode


class ScorerClient:
    """The scorer at ``url``, asked by one worker on its event loop. Raises InvalidSettings for an address that is none."""

    def __init__(self, url: str, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        self.url = url
        self.version = ""
        """Of the evaluator, as of the last answer."""
        self.failing: str | None = None
        """Why the last question was not answered."""
        try:
            self._replica = Replica(url, loop, _MAX_IDLE)
        except ValueError as error:
            raise InvalidSettings(
                f"{url!r} is no address of a scorer", field="scorer.url", fix="Use http://host:port."
            ) from error
        self._path = self._replica.base_path + b"/v1/score"
        self._clock = clock
        self._breaker = CircuitBreaker()
        self._asking = 0

    async def score(self, texts: Sequence[str], timeout_s: float) -> list[Scored]:
        """One for each text. Raises NotScored."""
        body = _encode({"texts": texts, "timeout_ms": timeout_s * 1e3})
        if len(texts) > MAX_TEXTS or len(body) > MAX_BODY_BYTES:
            raise NotScored("too_long")
        if self._breaker.refuses(_PROBE_S, self._clock.monotonic()) is not None:
            raise NotScored("down")
        if self._asking >= MAX_ASKING:
            raise NotScored("overloaded")
        self._asking += 1
        try:
            scores = await self._ask(texts, body, timeout_s)
        except NotScored as failure:
            self._failed(failure)
            raise
        finally:
            self._asking -= 1
        self._breaker.answered()
        if self.failing is not None:
            logger.info("the scorer answers again: url=%s", self.url)
            self.failing = None
        return scores

    def tidy(self) -> None:
        """Close what nobody has used for a while. Called now and then."""
        self._replica.close_idle(_IDLE_S)

    def close(self) -> None:
        """Close every connection."""
        self._replica.close()

    async def _ask(self, texts: Sequence[str], body: bytes, timeout_s: float) -> list[Scored]:
        try:
            answer = await fetch(self._replica, b"POST", self._path, _HEADERS, timeout_s, body=body)
        except Unavailable as error:
            late = isinstance(error.__cause__, TimeoutError)
            raise NotScored("timeout" if late else "unreachable") from error
        if answer.status in (429, 503):
            raise NotScored("overloaded")
        if answer.status == 413:
            raise NotScored("too_long")
        try:
            decoded = _decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise NotScored("invalid") from error
        scores = [Scored(each.score, each.unscored_reason) for each in decoded.scores]
        if answer.status != 200 or len(scores) != len(texts):
            raise NotScored("invalid")
        if any((score is None) == (reason is None) for score, reason in scores):
            raise NotScored("invalid")
        self.version = decoded.version
        return scores

    def _failed(self, failure: NotScored) -> None:
        if failure.reason in ("timeout", "unreachable", "invalid"):
            self._breaker.failed(_PROBE_S, self._clock.monotonic())
        if self.failing is None:
            logger.warning("texts are not checked for safety: url=%s reason=%s", self.url, failure)
        self.failing = str(failure)
