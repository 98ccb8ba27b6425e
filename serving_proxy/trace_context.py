"""W3C Trace Context (https://www.w3.org/TR/trace-context-2/): whether a request belongs to a trace.

The proxy forwards and does not participate: it emits no spans, so it invents no parent, and a valid ``traceparent``
goes on to the backend byte for byte, with its ``tracestate``; a span of the backend then hangs under the client's.
What is malformed is neither recorded nor forwarded, and ``tracestate`` never goes without ``traceparent`` ("Processing
Model").
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

TRACE_FIELDS: Final = frozenset((b"traceparent", b"tracestate"))

_IDS: Final = rb"(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
_PARENT: Final = re.compile(rb"00-" + _IDS)
# A later version may have more behind; ff is none.
_LATER_PARENT: Final = re.compile(rb"(?!00|ff)[0-9a-f]{2}-" + _IDS + rb"(?:-.*)?")


def trace_id(fields: Mapping[bytes, bytes]) -> str | None:
    """The trace id of the head's ``traceparent``, 32 hexadecimal digits; ``None`` without one that is valid."""
    value = fields.get(b"traceparent")
    match = None if value is None else _match(value)
    return None if match is None else match[1].decode("ascii")


def can_be_forwarded(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the trace context goes on to the backend: there is one ``traceparent``, and it is valid."""
    parents = [value for name, value in headers if name == b"traceparent"]
    return len(parents) == 1 and _match(parents[0]) is not None


def _match(value: bytes) -> re.Match[bytes] | None:
    value = value.strip()
    return _PARENT.fullmatch(value) or _LATER_PARENT.fullmatch(value)
