"""Draws by the id of a record: the same on every machine and in every run.

Invariant: whether a record is drawn depends on its id and the purpose alone, and a smaller share is a part of a larger
one. Purposes are independent of each other and of the fraction of the traffic that evaluations score.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

CONTROL: Final = "control sample"

_RANGE: Final = 2**64


def is_drawn(request_id: str, share: float, purpose: str) -> bool:
    """Whether the record is among the ``share`` of all."""
    return _place(request_id, purpose.encode()) < share * _RANGE


def drawn(
    request_ids: Sequence[str], share: float, purpose: str
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """The same of many records: booleans in their order."""
    if share >= 1.0:
        return np.ones(len(request_ids), np.bool_)
    limit, salt = share * _RANGE, purpose.encode()
    return np.fromiter((_place(name, salt) < limit for name in request_ids), np.bool_, len(request_ids))


def _place(request_id: str, salt: bytes) -> int:
    digest = hashlib.blake2b(salt + b"\x00" + request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest)
