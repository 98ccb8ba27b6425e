"""The HTTP surface of the way in, an ASGI application: ``POST /`` or ``/cloudevents``, and ``POST /v1/traces``.

Invariant: an answer of 2xx means that every event in the request is in the spool or in the journal, was there before, or is
one that nobody wants recorded. Whoever gets another answer has lost nothing by sending it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final, TypeVar

from collector.intake.answers import JSON, PROTOBUF, Answer, otlp_failure, problem
from collector.intake.arrival import Arrival
from collector.intake.cloud_events import CloudEvent, read_events
from collector.intake.counts import Counts, Way
from collector.intake.genai_spans import Read, read_spans
from collector.intake.intake import Intake
from collector.intake.journal import Step
from collector.intake.kserve_events import read_event
from collector.intake.otlp_json import read_json, write_json
from collector.intake.otlp_protobuf import read_protobuf, write_protobuf
from collector.intake.refusal import Refusal
from collector.intake.request_body import BodyReader, Gone, Receive
from collector.intake.rules import Door, Rules
from servelens.clock import Clock
from servelens.errors import ServelensError

logger = logging.getLogger(__name__)

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_CLOUD_EVENTS: Final = ("/", "/cloudevents")
_TRACES: Final = "/v1/traces"
_SMALL: Final = 64 << 10
_PATIENCE_S: Final = 30.0
_NAMED: Final = 5
_OK: Final = Answer(200)

Result = TypeVar("Result")


class IntakeApp:
    """The application. ``bodies`` bounds what it reads; ``door`` says who may send and where events belong."""

    def __init__(self, intake: Intake, bodies: BodyReader, door: Door, counts: Counts, clock: Clock) -> None:
        self._intake = intake
        self._bodies = bodies
        self._door = door
        self._counts = counts
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        fields = dict(scope["headers"])
        way: Way = "otlp" if scope["path"] == _TRACES else "cloudevents"
        kind = fields.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
        held = 0
        try:
            try:
                _check_address(scope)
                caller = self._door.caller(fields)
                rules = self._door.rules()
                body, held = await self._bodies.read(fields, receive)
                if way == "otlp":
                    answer = await self._take_traces(kind, body, rules, caller)
                else:
                    answer = await self._take_events(fields, body, rules, caller)
            except Gone:
                return
            except ServelensError as error:
                refusal = Refusal.of(error)
                answer = otlp_failure(refusal, kind) if way == "otlp" else problem(refusal)
                self._counts.events[way, "refused"] += 1
                logger.debug("refused: way=%s status=%d reason=%s", way, refusal.status, refusal)
        finally:
            self._bodies.give_back(held)
        self._counts.requests[way, answer.status] += 1
        await _send(answer, send)

    async def _take_events(
        self, fields: Mapping[bytes, bytes], body: bytes, rules: Rules, caller: str | None
    ) -> Answer:
        def read() -> list[Arrival | None]:
            events: list[CloudEvent] = read_events(fields, body)
            now_us = self._clock.now_us()
            return [read_event(event, rules, now_us=now_us, requester=caller) for event in events]

        arrivals = await _away(read, len(body))
        kept = [item for item in arrivals if item is not None]
        await self._take("cloudevents", kept)
        self._counts.events["cloudevents", "not_kept"] += len(arrivals) - len(kept)
        return _OK

    async def _take_traces(self, kind: str, body: bytes, rules: Rules, caller: str | None) -> Answer:
        if kind not in (PROTOBUF, JSON):
            raise Refusal(
                415,
                f"{kind[:128]!r} is not understood.",
                field="content-type",
                fix=f"Use {PROTOBUF} or {JSON}.",
            )

        def read() -> tuple[Read, int]:
            spans = read_protobuf(body) if kind == PROTOBUF else read_json(body)
            return read_spans(spans.found, rules, now_us=self._clock.now_us(), requester=caller), spans.others

        found, others = await _away(read, len(body))
        await self._take("otlp", found.arrivals)
        counts, rejected = self._counts.events, len(found.problems)
        counts["otlp", "ignored"] += others + found.ignored
        counts["otlp", "not_kept"] += found.not_kept
        counts["otlp", "refused"] += rejected
        message = "; ".join(found.problems[:_NAMED]) + ("; …" if rejected > _NAMED else "")
        return Answer(200, kind, (write_protobuf if kind == PROTOBUF else write_json)(rejected, message))

    async def _take(self, way: Way, arrivals: list[Arrival]) -> None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                steps = await self._intake.take(arrivals)
        except TimeoutError as error:
            raise Refusal(503, "the disk does not answer.", retry_after_s=5.0) from error
        duplicates = steps.count(Step.DUPLICATE)
        self._counts.events[way, "duplicate"] += duplicates
        self._counts.events[way, "accepted"] += len(steps) - duplicates


def _check_address(scope: Scope) -> None:
    path = scope["path"]
    if path not in (*_CLOUD_EVENTS, _TRACES):
        raise Refusal(
            404,
            f"there is nothing at {path[:128]}.",
            fix=f"Send CloudEvents to {' or '.join(_CLOUD_EVENTS)}, OTLP traces to {_TRACES}.",
        )
    if scope["method"] != "POST":
        raise Refusal(405, f"{scope['method']} is not understood here.", fix="Use POST.")


async def _away(read: Callable[[], Result], size: int) -> Result:
    """Read a large body in a thread, so that it holds nobody else up."""
    return read() if size <= _SMALL else await asyncio.to_thread(read)


async def _send(answer: Answer, send: Send) -> None:
    fields = [(b"content-length", b"%d" % len(answer.body)), *answer.fields]
    if answer.content_type is not None:
        fields.append((b"content-type", answer.content_type.encode("latin-1")))
    await send({"type": "http.response.start", "status": answer.status, "headers": fields})
    await send({"type": "http.response.body", "body": answer.body})
