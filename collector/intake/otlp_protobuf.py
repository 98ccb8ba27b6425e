"""OTLP traces in protobuf, https://github.com/open-telemetry/opentelemetry-proto (trace_service.proto, trace.proto)."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collector.intake.refusal import Refusal
from collector.intake.spans import Span, SpanEvent, Spans, concerns_ai


def read_protobuf(body: bytes) -> Spans:
    """The spans of an ``ExportTraceServiceRequest``. Raises Refusal when it is none."""
    try:
        export = ExportTraceServiceRequest.FromString(body)
    except DecodeError as error:
        raise Refusal(400, f"the body is no ExportTraceServiceRequest in protobuf: {error}") from error
    found: list[Span] = []
    others = 0
    for group in export.resource_spans:
        resource: dict[str, Any] | None = None
        for scope in group.scope_spans:
            for span in scope.spans:
                if not concerns_ai(attribute.key for attribute in span.attributes):
                    others += 1
                    continue
                if resource is None:
                    resource = _attributes(group.resource.attributes)
                found.append(
                    Span(
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        _attributes(span.attributes),
                        tuple(SpanEvent(event.name, _attributes(event.attributes)) for event in span.events),
                        span.status.code,
                        span.status.message,
                        resource,
                    )
                )
    return Spans(found, others)


def write_protobuf(rejected: int, message: str) -> bytes:
    """An ``ExportTraceServiceResponse``; with ``partial_success`` when spans were rejected."""
    if not rejected:
        return b""
    partial = ExportTracePartialSuccess(rejected_spans=rejected, error_message=message)
    return bytes(ExportTraceServiceResponse(partial_success=partial).SerializeToString())


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    if kind == "bytes_value":
        return base64.b64encode(value.bytes_value).decode()
    return None if kind is None else getattr(value, kind)
