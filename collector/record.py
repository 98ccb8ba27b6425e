"""What is kept of one invocation, as it travels from the proxy through the spool to the table.

The proxy keeps bodies as the bytes it saw; parsing, stream aggregation and token counting happen later, in
:mod:`collector.normalize`, off the hot path. The wire form is MessagePack of an array in field order: fields may be
*added at the end with a default*, never moved, renamed or removed, so that old spools stay readable.
"""

from __future__ import annotations

from typing import Final

import msgspec

REQUEST_TOO_LARGE: Final = "MAX_REQUEST_SIZE_EXCEEDED"
RESPONSE_TOO_LARGE: Final = "MAX_RESPONSE_SIZE_EXCEEDED"
UNROUTED: Final = "_unrouted"
"""Endpoint name of invocations that reached no endpoint: an unknown model, a malformed body."""
FEEDBACK: Final = "feedback"
"""``api`` of a record that is no invocation but a word on one; see :mod:`collector.feedback_record`."""


class Attempt(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One try at one replica: ``status`` is the backend's (``None`` when there was no answer), ``error_type`` as on
    the record, ``duration_us`` until its head came or it failed.
    """

    served_entity: str
    url: str
    status: int | None = None
    error_type: str | None = None
    duration_us: int = 0


class Record(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One invocation. Times are microseconds since the Unix epoch or durations in microseconds.

    ``request`` and ``response`` are the bodies as the *client's* dialect has them; ``response`` of a stream is the
    concatenated server-sent events. A body over the payload limit is ``None`` and named in ``logging_error_codes``.
    ``status_code`` is what the client was sent (499 when it left before an answer began).
    ``error_type`` is a short machine word: ``upstream_connect``, ``upstream_timeout``, ``upstream_reset``,
    ``upstream_invalid``, ``upstream_status``, ``invalid_request``, ``unknown_endpoint``, ``body_too_large``,
    ``spool_full``, ``client_disconnected``, ``internal``, ``unauthenticated``, ``forbidden``, ``rate_limited``,
    ``overloaded`` (also: a guardrail's scorer), ``blocked`` (by a guardrail); ``None`` when all went well.
    ``propensity`` is the probability with which this served entity was chosen for this unit.
    ``arrived_us`` is when a record that came in another way was whole here, for what counts as late; ``None`` for an
    invocation of the proxy, which is whole when it is answered.
    """

    request_id: str
    request_time_us: int
    status_code: int
    duration_us: int
    endpoint: str
    api: str
    client_request_id: str | None = None
    sampling_fraction: float = 1.0
    request: bytes | None = None
    response: bytes | None = None
    logging_error_codes: list[str] = []
    served_entity: str | None = None
    served_entity_id: str | None = None
    entity_version: str | None = None
    requester: str | None = None
    model: str | None = None
    experiment: str | None = None
    variant: str | None = None
    unit: str | None = None
    phase: int | None = None
    propensity: float | None = None
    is_shadow: bool = False
    shadow_of: str | None = None
    is_stream: bool = False
    time_to_first_token_us: int | None = None
    error_type: str | None = None
    attempts: int = 1
    client_disconnected: bool = False
    trace_id: str | None = None
    session_id: str | None = None
    tags: dict[str, str] = {}
    endpoint_config_version: int | None = None
    attempt_details: list[Attempt] = []
    arrived_us: int | None = None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)

encode = _encoder.encode
decode = _decoder.decode
