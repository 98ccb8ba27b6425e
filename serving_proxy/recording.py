"""What is kept of a finished invocation: the one place where a record is made from what the relay saw."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

from collector.record import REQUEST_TOO_LARGE, RESPONSE_TOO_LARGE, UNROUTED, Record
from serving_proxy.dialects.kserve import readable, without_tensors

if TYPE_CHECKING:
    from serving_proxy.relay import Relay

RESPONSE_UNREADABLE: Final = "RESPONSE_ENCODING_UNSUPPORTED"
"""On a record whose answer came compressed (unasked) in a way that could not be undone."""

MARKS: Final = "safety."
"""With what the tags begin that are ours."""

# Whoever may not call must not be able to fill the disk either.
_WITHOUT_PAYLOAD: Final = ("unauthenticated", "forbidden")
_NOTHING: Final[list[str]] = []
_NO_TAGS: Final[dict[str, str]] = {}


def record_of(relay: Relay, now_s: float) -> Record:
    """The invocation's record. The request is the client's own; the response is what the client was sent."""
    codes: list[str] = _NOTHING
    payload_limit = relay.payload_limit
    body = relay.request.body
    head = relay.request.head
    invocation = relay.invocation
    is_redacted = False
    if relay.error_type in _WITHOUT_PAYLOAD:
        body = None
    elif head.target.api == "infer" and body is not None:
        is_redacted = invocation is not None and bool(invocation.endpoint.gateway.redact_paths)
        body, code = readable(body, head.fields, payload_limit, tensors=not is_redacted)
        codes = [] if code is None else [code]
    elif body is None or len(body) > payload_limit:
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
        if is_redacted and response is not None:
            response, code = without_tensors(response)
            codes = codes if code is None or code in codes else [*codes, code]
    origin = relay.origin
    choice = relay.choice
    entity = relay.entity
    endpoint = None if invocation is None else invocation.endpoint
    first_token_s = relay.first_token_s
    model = None if invocation is None else invocation.model
    if entity is None:
        name = ident = version = None
    else:
        name, ident, version = entity.name, entity.id, entity.entity_version
        model = entity.backend.model or model  # the backend's own name of it
    experiment = variant = unit = phase = propensity = None
    if choice is not None:
        unit, propensity, experiment = choice.unit, choice.propensity, choice.experiment
        variant, phase = choice.variant, choice.phase
    # In the order of Record's fields: by name it would cost a microsecond more.
    return Record(
        relay.request_id,
        relay.request_time_us,
        relay.sent_status if relay.client_disconnected else relay.status,
        round((now_s - relay.started_s) * 1e6),
        UNROUTED if endpoint is None else endpoint.name,
        head.target.api,
        origin.client_request_id if invocation is None else invocation.client_request_id,
        1.0,
        body,
        response,
        codes,
        name,
        ident,
        version,
        head.requester,
        model,
        experiment,
        variant,
        unit,
        phase,
        propensity,
        relay.shadow_of is not None,
        relay.shadow_of,
        relay.is_stream,
        None if first_token_s is None else round(first_token_s * 1e6),
        relay.error_type,
        relay.attempts,
        relay.client_disconnected,
        origin.trace_id,
        origin.session_id,
        _with_marks(origin.tags, relay.marks) if origin.tags or relay.marks else _NO_TAGS,
        None if endpoint is None else endpoint.config_version,
        relay.attempt_log,
    )


def _with_marks(tags: dict[str, str] | None, marks: dict[str, str] | None) -> dict[str, str]:
    """The client's tags, but none that looks like ours (also where nobody looked: it would say that somebody had), and
    ours.
    """
    own = (tags or _NO_TAGS).items()
    return {**{name: text for name, text in own if not name.startswith(MARKS)}, **(marks or _NO_TAGS)}


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
