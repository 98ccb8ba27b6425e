"""When, and on what, a look is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Moment:
    """When and on what a look is made. ``since`` and ``until`` bound the records that count."""

    as_of: datetime
    state: str
    started_at: datetime | None = None
    since: datetime | None = None
    until: datetime | None = None
    payload_version: int | None = None
    scores_version: int | None = None
    feedback_version: int | None = None
