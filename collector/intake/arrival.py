"""What has arrived: a record, or one half of one, under the key that tells it from all others."""

from __future__ import annotations

from enum import IntEnum
from hashlib import blake2b
from typing import Final, NamedTuple

import msgspec

from collector.record import Record, encode
from servelens.errors import Invalid

REQUEST_MISSING: Final = "request_missing"
RESPONSE_MISSING: Final = "response_missing"
UNKNOWN_STATUS: Final = 0
"""``status_code`` of a record whose response never came: nobody said what the client was sent."""

TIME_IMPLAUSIBLE: Final = "EVENT_TIME_IMPLAUSIBLE"
"""On a record whose sender gave a time that cannot be; it has the time of its arrival instead."""

_OLDEST_US: Final = 946_684_800_000_000  # 2000
_AHEAD_US: Final = 86_400_000_000
_LIMIT: Final = 2**63


class Kind(IntEnum):
    """Which part of an invocation; the halves are bits, so that both together are the whole."""

    REQUEST = 1
    RESPONSE = 2
    WHOLE = 3


class Arrival(NamedTuple):
    """``key`` is the same for every delivery of the same event, and for both halves; ``content`` is the record as it
    lies on a disk.
    """

    key: bytes
    kind: Kind
    record: Record
    content: bytes


def arrival(key: bytes, kind: Kind, record: Record) -> Arrival:
    """An arrival. Raises :class:`~servelens.errors.Invalid` for a record that no spool can hold."""
    if not 0 <= record.request_time_us < _LIMIT or not 0 <= record.duration_us < _LIMIT:
        raise Invalid("a time is out of range", field="time")
    try:
        return Arrival(key, kind, record, encode(record))
    except (TypeError, ValueError, OverflowError) as error:
        raise Invalid(f"it cannot be stored: {error}") from error


def plausible(time_us: int, now_us: int) -> tuple[int, list[str]]:
    """The time, or now for one before 2000 or more than a day ahead, and the code that says so: a clock that is wrong
    must neither lose records nor make a partition of the table for each of its days.
    """
    if _OLDEST_US <= time_us <= now_us + _AHEAD_US:
        return time_us, []
    return now_us, [TIME_IMPLAUSIBLE]


def key_of(*parts: str) -> bytes:
    """16 bytes that stand for ``parts``, whatever characters are in them."""
    joined = b"".join(
        len(raw).to_bytes(4) + raw for raw in (part.encode("utf-8", "replace") for part in parts)
    )
    return blake2b(joined, digest_size=16).digest()


def joined(request: Record, response: Record) -> Record:
    """The record of both halves: identity and time are the request's, the outcome is the response's."""
    codes = [*request.logging_error_codes]
    codes += [code for code in response.logging_error_codes if code not in codes]
    return msgspec.structs.replace(
        request,
        status_code=response.status_code,
        duration_us=max(0, response.request_time_us - request.request_time_us),
        response=response.response,
        logging_error_codes=codes,
        model=request.model if request.model is not None else response.model,
        api=request.api if request.api != "unknown" else response.api,
        is_stream=request.is_stream or response.is_stream,
        unit=request.unit if request.unit is not None else response.unit,
        trace_id=request.trace_id or response.trace_id,
        session_id=request.session_id or response.session_id,
        tags={**response.tags, **request.tags},
        arrived_us=max(request.arrived_us or 0, response.arrived_us or 0) or None,
    )


def alone(kind: Kind, record: Record, now_us: int) -> Record:
    """The record of a half whose other half did not come until now."""
    if kind is Kind.REQUEST:
        return msgspec.structs.replace(
            record, status_code=UNKNOWN_STATUS, error_type=RESPONSE_MISSING, arrived_us=now_us
        )
    return msgspec.structs.replace(record, error_type=REQUEST_MISSING, arrived_us=now_us)
