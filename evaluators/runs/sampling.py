"""Which records an evaluation scores: all, a fraction, or so many per variant and window.

Invariants: whether a record is in the fraction depends on its id alone (a hash), so all evaluators, runs and machines
choose the same records, and a smaller fraction is a part of a larger one. A quota takes the records of a variant that
come first in a window of ``request_time``, and is never exceeded: what the scores table has is counted, and ties are
broken by id, so a run that is repeated chooses the same ones again.

The first of a window are not a fair sample of it. For a mean over the window use ``fraction``; a quota bounds the cost.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from servelens.errors import Invalid

_PER: Final = re.compile(r"([1-9][0-9]{0,3}) (minute|hour|day)s?")
_UNIT_S: Final = {"minute": 60, "hour": 3_600, "day": 86_400}
_SALT: Final = b"evaluation "


@dataclass(frozen=True, slots=True)
class Sampling:
    """``fraction`` of the records, and of these at most ``quota`` per variant and window of ``per``."""

    fraction: float = 1.0
    quota: int | None = None
    per: str = "1 hour"

    def __post_init__(self) -> None:
        if not 0.0 < self.fraction <= 1.0:
            raise Invalid(
                f"{self.fraction} is no fraction.",
                field="sampling.fraction",
                fix="Use more than 0 and at most 1.",
            )
        if self.quota is not None and self.quota < 1:
            raise Invalid(
                f"{self.quota} is no quota.", field="sampling.quota", fix="Use 1 or more, or leave it out."
            )
        if _PER.fullmatch(self.per) is None:
            raise Invalid(
                f"'{self.per}' is no length of time.",
                field="sampling.per",
                fix="Write '10 minutes', '1 hour', '1 day'.",
            )

    @property
    def window(self) -> timedelta:
        """The length of ``per``. Windows are aligned to midnight UTC of 1 January 1970."""
        found = _PER.fullmatch(self.per)
        if found is None:  # __post_init__ has looked
            raise Invalid(f"'{self.per}' is no length of time.", field="sampling.per")
        return timedelta(seconds=int(found[1]) * _UNIT_S[found[2]])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"fraction": self.fraction, "quota": self.quota, "per": self.per}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Sampling:
        """What :meth:`to_dict` gave."""
        return cls(float(stored["fraction"]), stored["quota"], stored["per"])


def in_fraction(request_id: str, fraction: float) -> bool:
    """Whether the record is among the ``fraction`` of all."""
    digest = hashlib.blake2b(_SALT + request_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest) < fraction * 2**64
