"""What the viewer looks at: endpoint, time window and variants, as the address bar holds them.

The browser keeps the view in the address and hands it over as a small mapping (``assets/view.js``). Everything in it
comes from outside: a value that is not one of ours falls back to the default instead of failing the page.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from servelens.clock import Clock

RANGES: Mapping[str, tuple[str, timedelta]] = {
    "15m": ("Last 15 minutes", timedelta(minutes=15)),
    "1h": ("Last hour", timedelta(hours=1)),
    "6h": ("Last 6 hours", timedelta(hours=6)),
    "24h": ("Last 24 hours", timedelta(hours=24)),
    "7d": ("Last 7 days", timedelta(days=7)),
    "30d": ("Last 30 days", timedelta(days=30)),
}
DEFAULT_RANGE = "24h"
LONGEST = timedelta(days=31)
_BINS = tuple(
    timedelta(seconds=seconds) for seconds in (1, 5, 15, 60, 300, 900, 1800, 3600, 7200, 21600, 43200, 86400)
)
_MOST_BINS = 110
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Window:
    """The half-open time window ``[since, until)`` in UTC, both on a multiple of ``bin``."""

    since: datetime
    until: datetime
    bin: timedelta

    @property
    def length(self) -> timedelta:
        return self.until - self.since

    def previous(self) -> Window:
        """The window of the same length just before."""
        return Window(self.since - self.length, self.since, self.bin)


@dataclass(frozen=True, slots=True)
class View:
    """One viewer's filter. ``arms`` is empty when nothing is filtered; ``zone`` is the viewer's IANA time zone."""

    endpoint: str
    window: Window
    range_label: str
    relative: bool
    arms: tuple[str, ...]
    zone: str


def window(since: datetime, until: datetime) -> Window:
    """The window that covers ``since`` to ``until``, widened to whole bins of a readable width (110 at the most)."""
    wanted = max(until - since, timedelta(seconds=1))
    width = next((bin_ for bin_ in _BINS if wanted / bin_ <= _MOST_BINS), _BINS[-1])
    start = _EPOCH + ((since - _EPOCH) // width) * width
    end = _EPOCH + -((_EPOCH - until) // width) * width
    return Window(start, max(end, start + width), width)


def parse(data: Mapping[str, Any] | None, endpoints: Sequence[str], clock: Clock) -> View:
    """The view in ``data`` (keys endpoint, range, from, to, variants, zone); unusable values become defaults."""
    data = data or {}
    endpoint = data.get("endpoint")
    if endpoint not in endpoints:
        endpoint = endpoints[0] if endpoints else ""
    arms = data.get("variants")
    since, until = _time(data.get("from")), _time(data.get("to"))
    zone = str(data.get("zone") or "UTC")
    names = tuple(str(arm) for arm in arms) if isinstance(arms, list) else ()
    if since and until and since < until:
        since = max(since, until - LONGEST)
        return View(str(endpoint), window(since, until), "the chosen time", False, names, zone)
    key = data.get("range")
    label, length = RANGES[key if isinstance(key, str) and key in RANGES else DEFAULT_RANGE]
    now = clock.now()
    return View(str(endpoint), window(now - length, now), label.lower(), True, names, zone)


def _time(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return moment if 1990 <= moment.year <= 2200 else None
