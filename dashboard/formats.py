"""Numbers and times as people read them. A missing value is an en dash, never a zero."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

MISSING = "–"


def zone(name: str | None) -> tzinfo:
    """The viewer's time zone by its IANA name, or UTC when it is unknown here."""
    if not name:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return UTC


def count(value: float | None) -> str:
    """``1,234``, ``12.3k``, ``4.56M``."""
    if value is None or math.isnan(value):
        return MISSING
    for limit, divisor, suffix in ((1e4, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M"), (math.inf, 1e9, "B")):
        if abs(value) < limit:
            return f"{value:,.0f}" if not suffix else f"{significant(value / divisor)}{suffix}"
    return MISSING


def significant(value: float | None, digits: int = 3) -> str:
    """``value`` with three significant digits and no exponent within reason: ``0.0123``, ``4.57``, ``1,240``."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    value = float(f"{value:.{digits - 1}e}")
    magnitude = math.floor(math.log10(abs(value)))
    if magnitude < -5:
        return f"{value:.1e}".replace("-", "−")
    places = max(0, digits - 1 - magnitude)
    return f"{value:,.{places}f}".replace("-", "−")


def percent(share: float | None, digits: int = 2) -> str:
    """A share of 1 as percent: ``0.31 %``, ``12.4 %``."""
    if share is None or math.isnan(share):
        return MISSING
    value = share * 100
    if value and abs(value) < 10**-digits / 2:
        return f"< {10**-digits} %"
    places = digits if abs(value) < 10 else 1
    return f"{value:.{places}f} %".replace("-", "−")


def lift(share: float | None) -> str:
    """A relative change: ``+12.4 %``, ``−3.10 %``, ``×41`` when it is more than tenfold."""
    if share is None or math.isnan(share):
        return MISSING
    if math.isinf(share):
        return "∞" if share > 0 else "−∞"
    if share >= 9:
        return f"×{significant(share + 1)}"
    value = share * 100
    places = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:+.{places}f} %".replace("-", "−")


def milliseconds(value: float | None) -> str:
    """A duration in milliseconds: ``412 ms``, ``1.84 s``, ``2 min 3 s``."""
    if value is None or math.isnan(value):
        return MISSING
    if value < 1:
        return f"{significant(value, 2)} ms"
    if value < 999.5:
        return f"{value:.0f} ms"
    seconds = value / 1000
    if seconds < 60:
        return f"{significant(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def p_value(value: float | None) -> str:
    """``p = 0.032`` or ``p < 0.001``."""
    if value is None or math.isnan(value):
        return f"p {MISSING}"
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def moment(value: datetime | None, zone_name: str | None, *, seconds: bool = True) -> str:
    """A time in the viewer's zone: ``1 Oct, 14:03:22``."""
    if value is None:
        return MISSING
    local = value.astimezone(zone(zone_name))
    return (
        f"{local.day} {local:%b}, {local:%H:%M:%S}" if seconds else f"{local.day} {local:%b}, {local:%H:%M}"
    )


def full_moment(value: datetime | None, zone_name: str | None) -> str:
    """A time to the millisecond, with its offset: ``2026-10-01 14:03:22.125 +0200``."""
    if value is None:
        return MISSING
    local = value.astimezone(zone(zone_name))
    return f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d} {local:%z}"


def ago(value: datetime | None, now: datetime) -> str:
    """``just now``, ``4 min ago``, ``3 h ago``, ``5 days ago``."""
    if value is None:
        return MISSING
    gap = now - value
    if gap < timedelta(seconds=45):
        return "just now"
    minutes = gap / timedelta(minutes=1)
    if minutes < 90:
        return f"{max(1, round(minutes))} min ago"
    hours = minutes / 60
    return f"{round(hours)} h ago" if hours < 36 else f"{round(hours / 24)} days ago"


def duration(value: timedelta) -> str:
    """A time to wait in words: ``90 seconds``, ``15 minutes``, ``3 hours``."""
    seconds = value.total_seconds()
    for size, unit in ((3_600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}s"
    return f"{seconds:.3g} second{'' if seconds == 1 else 's'}"


def plural(number: int, one: str, many: str | None = None) -> str:
    """``1 case``, ``2 cases``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
