"""Spans of generative AI as arrivals: one record for each span of an inference.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (status: development). An inference is a span
whose ``gen_ai.operation.name`` is chat, text_completion, embeddings or generate_content; of those that name no operation,
what OpenLLMetry, OpenInference and vLLM send for one. Agents, tools and retrievals are nothing to record.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from collector.intake.arrival import Arrival, Kind, arrival, key_of, plausible
from collector.intake.genai_bodies import request_body, response_body
from collector.intake.rules import Rules
from collector.intake.spans import ERROR, Span
from collector.record import Record
from servelens.errors import Invalid
from servelens.identifiers import id_at

_OPERATIONS: Final = {
    "chat": "chat",
    "generate_content": "chat",
    "text_completion": "completions",
    "embeddings": "embeddings",
}
_REQUEST_TYPES: Final = {"chat": "chat", "completion": "completions", "embedding": "embeddings"}
_SPAN_KINDS: Final = {"LLM": "chat", "EMBEDDING": "embeddings"}
_VLLM: Final = "gen_ai.request.id"
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")
_FIRST_CHUNK_S: Final = (
    "gen_ai.response.time_to_first_chunk",
    "gen_ai.server.time_to_first_token",
    "gen_ai.latency.time_to_first_token",
)
_MODELS: Final = ("gen_ai.request.model", "gen_ai.response.model", "llm.model_name")
_SESSIONS: Final = ("gen_ai.conversation.id", "session.id")
_USERS: Final = ("user.id", "enduser.id", "llm.user", "traceloop.association.properties.user_id")
_CLIENT_IDS: Final = ("gen_ai.response.id", _VLLM)
_TAGS: Final = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.system",
    "gen_ai.agent.name",
    "error.type",
)
_RESOURCE_TAGS: Final = ("service.name", "service.version", "deployment.environment.name")
_STATUS: Final = re.compile(r"[1-5][0-9]{2}")
_BY_NAME: Final = (  # words in error.type, which is a class name in most libraries
    ("timeout", "upstream_timeout", 504),
    ("timedout", "upstream_timeout", 504),
    ("connection", "upstream_connect", 502),
    ("ratelimit", "upstream_status", 429),
    ("authentication", "upstream_status", 401),
    ("permission", "upstream_status", 403),
    ("notfound", "upstream_status", 404),
    ("badrequest", "upstream_status", 400),
)


class Read(NamedTuple):
    """What an export holds: arrivals, how many spans are none of an inference and how many may not be kept, and what
    is wrong with the others.
    """

    arrivals: list[Arrival]
    ignored: int
    not_kept: int
    problems: list[str]


def read_spans(spans: list[Span], rules: Rules, *, now_us: int, requester: str | None) -> Read:
    """The inferences among ``spans``."""
    found: list[Arrival] = []
    ignored = not_kept = 0
    problems: list[str] = []
    for span in spans:
        api = _api(span.attributes)
        if api is None:
            ignored += 1
            continue
        try:
            _check(span)
            key = key_of("otlp", span.trace_id, span.span_id)
            record = _record(span, api, key, rules, now_us, requester)
            if record is None:
                not_kept += 1
            else:
                found.append(arrival(key, Kind.WHOLE, record))
        except (Invalid, RecursionError) as error:
            problems.append(f"span {span.span_id[:32] or 'without an id'}: {error}")
    return Read(found, ignored, not_kept, problems)


def _api(attributes: Mapping[str, Any]) -> str | None:
    operation = attributes.get("gen_ai.operation.name")
    if operation is not None:
        return _OPERATIONS.get(operation) if isinstance(operation, str) else None
    request_type = attributes.get("llm.request.type")
    if isinstance(request_type, str) and request_type in _REQUEST_TYPES:
        return _REQUEST_TYPES[request_type]
    kind = attributes.get("openinference.span.kind")
    if isinstance(kind, str) and kind.upper() in _SPAN_KINDS:
        return _SPAN_KINDS[kind.upper()]
    return "completions" if _VLLM in attributes else None


def _check(span: Span) -> None:
    if not _TRACE_ID.fullmatch(span.trace_id):
        raise Invalid("it is not 16 bytes, not all zero", field="traceId")
    if not _SPAN_ID.fullmatch(span.span_id):
        raise Invalid("it is not 8 bytes, not all zero", field="spanId")
    if span.start_ns <= 0:
        raise Invalid("there is none", field="startTimeUnixNano")
    if span.end_ns < span.start_ns:
        raise Invalid("it lies before the start", field="endTimeUnixNano")


def _record(
    span: Span, api: str, key: bytes, rules: Rules, now_us: int, requester: str | None
) -> Record | None:
    attributes, resource = span.attributes, span.resource
    service = _first(resource, "service.name")
    model = _first(attributes, *_MODELS)
    target = rules.target(
        _first(attributes, "servelens.endpoint"), _first(resource, "servelens.endpoint"), service
    )
    entity = target.entity(
        _first(attributes, "servelens.served_entity"), _first(resource, "servelens.served_entity"), model
    )
    status, error_type = _outcome(span)
    first_us = _first_chunk_us(attributes)
    tags = {name: text for name in _TAGS if (text := _first(attributes, name))}
    tags |= {name: text for name in _RESOURCE_TAGS if (text := _first(resource, name))}
    tags["span_id"] = span.span_id
    if span.parent_id:
        tags["parent_span_id"] = span.parent_id
    time_us, codes = plausible(span.start_ns // 1_000, now_us)
    return target.kept(
        Record(
            request_id=id_at(time_us, key),
            request_time_us=time_us,
            status_code=status,
            duration_us=(span.end_ns - span.start_ns) // 1_000,
            endpoint=target.name,
            api=api,
            client_request_id=_first(attributes, *_CLIENT_IDS),
            request=request_body(span, api, model),
            response=response_body(span, api, _first(attributes, "gen_ai.response.model") or model),
            logging_error_codes=codes,
            served_entity=entity.name,
            served_entity_id=entity.id,
            entity_version=entity.version,
            requester=requester,
            model=model,
            unit=_first(attributes, *_USERS),
            time_to_first_token_us=first_us,
            is_stream=first_us is not None or attributes.get("gen_ai.request.stream") is True,
            error_type=error_type,
            trace_id=span.trace_id,
            session_id=_first(attributes, *_SESSIONS) or _first(resource, "session.id"),
            tags=tags,
            endpoint_config_version=target.config_version,
            arrived_us=now_us,
        )
    )


def _outcome(span: Span) -> tuple[int, str | None]:
    """Status and error type. A span that says no status went well, or failed with 500 where nothing tells better."""
    attributes = span.attributes
    status = attributes.get("http.response.status_code")
    failure = _first(attributes, "error.type")
    if not (isinstance(status, int) and 100 <= status <= 599):
        status = int(failure) if failure is not None and _STATUS.fullmatch(failure) else None
    if span.status != ERROR and failure is None:
        return (
            200 if status is None else status
        ), None if status is None or status < 400 else "upstream_status"
    words = (failure or "").lower().replace("_", "")
    for word, error_type, likely in _BY_NAME:
        if word in words:
            return status or likely, error_type
    return status or 500, "upstream_status"


def _first_chunk_us(attributes: Mapping[str, Any]) -> int | None:
    for name in _FIRST_CHUNK_S:
        value = attributes.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e6:
            return round(value * 1e6)
    return None


def _first(attributes: Mapping[str, Any], *names: str) -> str | None:
    """The first value that is there, as text."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str):
            if value:
                return value
        elif isinstance(value, int | float):
            return str(value)
    return None
