"""A span as both encodings of OTLP give it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

_PREFIXES: Final = ("gen_ai.", "llm.", "openinference.")

ERROR: Final = 2
"""``STATUS_CODE_ERROR``."""


class SpanEvent(NamedTuple):
    """Something that happened within a span."""

    name: str
    attributes: Mapping[str, Any]


class Span(NamedTuple):
    """Ids are hexadecimal digits in lower case, as they were sent: :mod:`collector.intake.genai_spans` checks them.
    Times are nanoseconds since the Unix epoch. Attribute values are plain Python values.
    """

    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    events: tuple[SpanEvent, ...]
    status: int
    status_message: str
    resource: Mapping[str, Any]


class Spans(NamedTuple):
    """The spans of an export that may be of generative AI, and how many others there were."""

    found: list[Span]
    others: int


def concerns_ai(names: Iterable[str]) -> bool:
    """Whether a span with attributes of these names may be one to record."""
    return any(name.startswith(_PREFIXES) for name in names)
