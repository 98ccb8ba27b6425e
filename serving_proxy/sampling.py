"""Which invocations are recorded when only a share of them is."""

from __future__ import annotations

from typing import Final

_RANGE: Final = float(1 << 48)


def is_sampled(request_id: str, fraction: float) -> bool:
    """Whether the invocation belongs to the ``fraction`` (0 to 1) that is recorded.

    The last 48 bits of a request id (UUIDv7) are random, so they are the draw: the same answer for everybody who has the
    id, and what is in a smaller fraction is in every larger one.
    """
    return fraction >= 1.0 or int(request_id[-12:], 16) / _RANGE < fraction
