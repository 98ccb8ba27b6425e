"""The service's HTTP: ``POST /v1/score``, ``/health/live``, ``/health/ready``, ``/metrics``.

A plain ASGI application: it answers one question, fifty to some hundreds of times a second, and a framework would cost
more than all the rest of it. Errors are RFC 9457 problem details.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST

from evaluators.evaluator import Evaluator
from evaluators.scorer_service.micro_batches import MicroBatches
from evaluators.scorer_service.service_metrics import ServiceMetrics
from servelens.errors import Backpressure, Invalid, Missing, ServelensError

MAX_BODY_BYTES: Final = 1 << 20
MAX_TEXTS: Final = 1_024
MAX_TIMEOUT_MS: Final = 60_000.0
_DEFAULT_TIMEOUT_MS: Final = 5_000.0
_JSON: Final = b"application/json"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Question(msgspec.Struct):
    """``timeout_ms``: how long the caller waits; nothing is computed for it after that."""

    texts: list[str]
    timeout_ms: float = _DEFAULT_TIMEOUT_MS


class TextScore(msgspec.Struct):
    """A score, or the reason why there is none."""

    score: float | None
    label: str | None
    unscored_reason: str | None


class Answer(msgspec.Struct):
    """One entry per text, in their order; ``model`` and ``version`` are the evaluator's."""

    scores: list[TextScore]
    model: str
    version: str


_decode = msgspec.json.Decoder(Question).decode
_encode = msgspec.json.Encoder().encode


class ScorerApplication:
    """Called by an ASGI server for each request."""

    def __init__(self, evaluator: Evaluator, batches: MicroBatches, metrics: ServiceMetrics) -> None:
        self._evaluator = evaluator
        self._batches = batches
        self._metrics = metrics

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise Invalid(f"the scorer does not speak {scope['type']}.", fix="Use HTTP.")
        status, kind, body, more = 200, _JSON, b"", []
        try:
            kind, body = await self._answer(scope, receive)
        except ServelensError as error:
            status, kind, body = error.status, b"application/problem+json", _problem(error)
            if isinstance(error, Backpressure):
                more = [(b"retry-after", b"1")]
        except _Unready as unready:
            status, body = 503, unready.detail
        headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body)), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive) -> tuple[bytes, bytes]:
        match scope["method"], scope["path"]:
            case "POST", "/v1/score":
                return _JSON, await self._score(await _body(receive))
            case "GET", "/health/live":
                return _JSON, _encode({"status": "ok"})
            case "GET", "/health/ready":
                return _JSON, self._readiness()
            case "GET", "/metrics":
                return CONTENT_TYPE_LATEST.encode(), self._metrics.text()
            case _:
                raise Missing(
                    f"there is no {scope['method']} {scope['path']} here.",
                    fix="Use POST /v1/score, GET /health/live, /health/ready or /metrics.",
                )

    async def _score(self, body: bytes) -> bytes:
        try:
            question = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._metrics.refused("invalid")
            raise Invalid(f"{error}.", field="body", fix='Send {"texts": ["…"]}.') from error
        if len(question.texts) > MAX_TEXTS:
            self._metrics.refused("invalid")
            raise Invalid(
                f"{len(question.texts)} texts are too many.",
                field="texts",
                fix=f"Send {MAX_TEXTS} at the most.",
            )
        if not 0 < question.timeout_ms <= MAX_TIMEOUT_MS:
            self._metrics.refused("invalid")
            raise Invalid(
                f"{question.timeout_ms:g} is no time to wait.",
                field="timeout_ms",
                fix=f"Use more than 0 and at most {MAX_TIMEOUT_MS:g} milliseconds.",
            )
        scores = await self._batches.score(question.texts, question.timeout_ms / 1e3)
        return _encode(
            Answer(
                [TextScore(score.value, score.label, score.unscored_reason) for score in scores],
                self._evaluator.model,
                self._evaluator.version,
            )
        )

    def _readiness(self) -> bytes:
        batches, evaluator = self._batches, self._evaluator
        detail = _encode(
            {
                "status": "stuck" if batches.is_stuck else "ok",
                "evaluator": evaluator.name,
                "model": evaluator.model,
                "version": evaluator.version,
                "device": evaluator.device,
                "queued_texts": batches.queued,
                "busy_s": round(batches.busy_s, 3),
            }
        )
        if batches.is_stuck:
            raise _Unready(detail)
        return detail


class _Unready(Exception):
    def __init__(self, detail: bytes) -> None:
        self.detail = detail
        super().__init__()


async def _body(receive: Receive) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Invalid("the request broke off.", field="body")
        piece = message.get("body", b"")
        size += len(piece)
        if size > MAX_BODY_BYTES:
            error = Invalid(f"it is longer than {MAX_BODY_BYTES} bytes.", field="body", fix="Send less text.")
            error.status = 413
            raise error
        pieces.append(piece)
        if not message.get("more_body"):
            return b"".join(pieces)


def _problem(error: ServelensError) -> bytes:
    return _encode({"status": error.status, "title": type(error).__name__, "detail": str(error)})
