"""What is kept of a finished invocation: the one place where a record is made from what the relay saw."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from collector.record import REQUEST_TOO_LARGE, RESPONSE_TOO_LARGE, UNROUTED, Record
from serving_proxy.endpoint import ServedEntity
from serving_proxy.invocation import Invocation

if TYPE_CHECKING:
    from serving_proxy.relay import Relay

RESPONSE_UNREADABLE: Final = "RESPONSE_ENCODING_UNSUPPORTED"
"""On a record whose answer came compressed (unasked) in a way that could not be undone."""

_NOTHING: Final[list[str]] = []
_NO_TAGS: Final[dict[str, str]] = {}


def record_of(relay: Relay, now_s: float) -> Record:
    """The invocation's record. The request is the client's own; the response is what the client was sent."""
    codes: list[str] = _NOTHING
    payload_limit = relay.payload_limit
    body = relay.request.body
    if body is None or len(body) > payload_limit:
        body = None
        codes = [REQUEST_TOO_LARGE]
    response: bytes | None = None
    if relay.kept is None:
        codes = [*codes, RESPONSE_TOO_LARGE]
    else:
        response = relay.kept[0] if len(relay.kept) == 1 else b"".join(relay.kept)
        if relay.content_encoding is not None:
            response = _decoded(response, relay.content_encoding, payload_limit)
            if response is None:
                codes = [*codes, RESPONSE_UNREADABLE]
    origin = relay.origin
    invocation = relay.invocation
    choice = relay.choice
    entity = None if choice is None else choice.entity
    first_token_s = relay.first_token_s
    return Record(
        request_id=relay.request_id,
        request_time_us=relay.request_time_us,
        status_code=relay.sent_status,
        duration_us=round((now_s - relay.started_s) * 1e6),
        endpoint=UNROUTED if invocation is None else invocation.endpoint.name,
        api=relay.request.target.api,
        client_request_id=origin.client_request_id if invocation is None else invocation.client_request_id,
        request=body,
        response=response,
        logging_error_codes=codes,
        served_entity=None if entity is None else entity.name,
        served_entity_id=None if entity is None else entity.id,
        entity_version=None if entity is None else entity.entity_version,
        model=_model_of(entity, invocation),
        experiment=None if choice is None else choice.experiment,
        variant=None if choice is None else choice.variant,
        unit=None if choice is None else choice.unit,
        phase=None if choice is None else choice.phase,
        propensity=None if choice is None else choice.propensity,
        is_stream=relay.is_stream,
        time_to_first_token_us=None if first_token_s is None else round(first_token_s * 1e6),
        error_type=relay.error_type,
        attempts=relay.attempts,
        client_disconnected=relay.client_disconnected,
        trace_id=origin.trace_id,
        session_id=origin.session_id,
        tags=origin.tags or _NO_TAGS,
    )


def _model_of(entity: ServedEntity | None, invocation: Invocation | None) -> str | None:
    """The backend's own model name, else what the client called it."""
    if entity is not None and entity.backend.model is not None:
        return entity.backend.model
    return None if invocation is None else invocation.model


def _decoded(body: bytes, encoding: bytes, limit: int) -> bytes | None:
    """The body without its content encoding, or ``None`` when that is unknown, broken or expands too far."""
    if encoding.lower() not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: take gzip and zlib framing alike
    try:
        plain = inflater.decompress(body, limit)
    except zlib.error:
        return None
    return None if inflater.unconsumed_tail else plain
