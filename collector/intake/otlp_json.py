"""OTLP traces in JSON.

Source: https://github.com/open-telemetry/opentelemetry-proto/blob/main/docs/specification.md#json-protobuf-encoding:
names in lowerCamelCase, unknown ones ignored; ids in hexadecimal; 64-bit integers as numbers or strings.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import msgspec

from collector.intake.refusal import Refusal
from collector.intake.spans import Span, SpanEvent, Spans, concerns_ai

_MAX_LONG: Final = 2**64


class _Message(msgspec.Struct, rename="camel", gc=False):
    pass


class _AnyValue(_Message):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    array_value: _ArrayValue | None = None
    kvlist_value: _KeyValueList | None = None
    bytes_value: str | None = None


class _ArrayValue(_Message):
    values: list[_AnyValue] | None = None


class _KeyValue(_Message):
    key: str = ""
    value: _AnyValue | None = None


class _KeyValueList(_Message):
    values: list[_KeyValue] | None = None


class _Status(_Message):
    code: int | None = None
    message: str | None = None


class _Event(_Message):
    name: str | None = None
    attributes: list[_KeyValue] | None = None


class _Span(_Message):
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: list[_KeyValue] | None = None
    events: list[_Event] | None = None
    status: _Status | None = None


class _ScopeSpans(_Message):
    spans: list[_Span] | None = None


class _Resource(_Message):
    attributes: list[_KeyValue] | None = None


class _ResourceSpans(_Message):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None


class _Export(_Message):
    resource_spans: list[_ResourceSpans] | None = None


_decode = msgspec.json.Decoder(_Export).decode


def read_json(body: bytes) -> Spans:
    """The spans of an ``ExportTraceServiceRequest`` in JSON. Raises Refusal when it is none."""
    try:
        export = _decode(body)
        found: list[Span] = []
        others = 0
        for group in export.resource_spans or ():
            resource = _attributes(group.resource.attributes if group.resource else None)
            for scope in group.scope_spans or ():
                for span in scope.spans or ():
                    if concerns_ai(attribute.key for attribute in span.attributes or ()):
                        found.append(_span(span, resource))
                    else:
                        others += 1
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Refusal(400, f"the body is no ExportTraceServiceRequest in JSON: {error}") from error
    return Spans(found, others)


def write_json(rejected: int, message: str) -> bytes:
    """An ``ExportTraceServiceResponse``; with ``partialSuccess`` when spans were rejected."""
    if not rejected:
        return b"{}"
    partial = {"rejectedSpans": str(rejected), "errorMessage": message}
    return msgspec.json.encode({"partialSuccess": partial})


def _span(span: _Span, resource: dict[str, Any]) -> Span:
    return Span(
        (span.trace_id or "").lower(),
        (span.span_id or "").lower(),
        (span.parent_span_id or "").lower(),
        _integer(span.start_time_unix_nano),
        _integer(span.end_time_unix_nano),
        _attributes(span.attributes),
        tuple(SpanEvent(event.name or "", _attributes(event.attributes)) for event in span.events or ()),
        span.status.code or 0 if span.status else 0,
        span.status.message or "" if span.status else "",
        resource,
    )


def _attributes(pairs: Iterable[_KeyValue] | None) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs or ()}


def _value(value: _AnyValue | None) -> Any:
    if value is None:
        return None
    if value.array_value is not None:
        return [_value(item) for item in value.array_value.values or ()]
    if value.kvlist_value is not None:
        return _attributes(value.kvlist_value.values)
    if value.int_value is not None:
        return _integer(value.int_value)
    if value.double_value is not None:
        return float(value.double_value)
    if value.string_value is not None:
        return value.string_value
    return value.bool_value if value.bool_value is not None else value.bytes_value


def _integer(value: int | str | None) -> int:
    number = int(value or 0)
    if not -_MAX_LONG < number < _MAX_LONG:
        raise ValueError(f"{number} has more than 64 bits")
    return number
