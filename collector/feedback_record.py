"""Feedback as it travels from the proxy through the spool to its table: a record like any other, of another kind.

It is a :class:`~collector.record.Record` with ``api`` ``feedback``, so that it lies in the same spool, in the same order,
under the same promise. ``request_id`` is the feedback's own id, ``request_time_us`` its arrival, ``unit`` the user who gave
it, ``model`` the endpoint that the sender named; ``request`` is the JSON of a :class:`Feedback`. Invariant: fields of the
JSON are only ever added.
"""

from __future__ import annotations

from typing import Final

import msgspec

from collector.record import FEEDBACK, Record

THUMBS: Final = "thumbs"
SCORE: Final = "score"
COMMENT: Final = "comment"
CORRECTED_ANSWER: Final = "corrected_answer"
GROUND_TRUTH: Final = "ground_truth"
NAMES: Final = (THUMBS, SCORE, COMMENT, CORRECTED_ANSWER, GROUND_TRUTH)
"""The names that feedback has by itself; apps may give others."""


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row to be: a number in ``value``, a word in ``label``, a text in ``comment``."""

    name: str
    value: float | None = None
    label: str | None = None
    comment: str | None = None


class Feedback(msgspec.Struct, frozen=True, omit_defaults=True):
    """What somebody said of one request, known by its id or by the ``client_request_id`` of the record."""

    parts: list[Part]
    request_id: str | None = None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Feedback).decode


def feedback_record(
    feedback: Feedback,
    *,
    feedback_id: str,
    time_us: int,
    endpoint: str,
    named_endpoint: str | None = None,
    client_request_id: str | None = None,
    user: str | None = None,
    tags: dict[str, str] | None = None,
    requester: str | None = None,
) -> Record:
    """The record of ``feedback`` that arrived at ``time_us`` (microseconds since the Unix epoch)."""
    return Record(
        request_id=feedback_id,
        request_time_us=time_us,
        status_code=202,
        duration_us=0,
        endpoint=endpoint,
        api=FEEDBACK,
        client_request_id=client_request_id,
        request=_encode(feedback),
        requester=requester,
        model=named_endpoint,
        unit=user,
        tags=tags or {},
    )


def feedback_in(record: Record) -> Feedback:
    """What a record of feedback says. Raises ``msgspec.DecodeError`` (a ``ValueError``) for one that says nothing."""
    return _decode(record.request or b"")
