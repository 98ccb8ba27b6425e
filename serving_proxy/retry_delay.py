"""How long to wait before the same replica is asked again.

Source: M. Brooker, Exponential Backoff and Jitter (full jitter)
https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/; RFC 9110 §10.2.3 (Retry-After).
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from random import Random

from serving_proxy.endpoint import Retries


def retry_delay(retries: Retries, tries: int, retry_after_s: float | None, random: Random) -> float | None:
    """Seconds until the next try after ``tries`` of them: what the answer asked for, else a random part of a time
    that doubles. ``None`` when the answer asks for more than ``max_s``: then it is the client's to wait.
    """
    if retry_after_s is not None:
        return retry_after_s if retry_after_s <= retries.max_s else None
    bound: float = min(retries.max_s, retries.base_s * 2 ** (tries - 1))
    return random.uniform(0.0, bound)


def retry_after(value: bytes | None, now_us: int) -> float | None:
    """The field's value in seconds from now, at least 0; ``None`` when it is not there or makes no sense."""
    if value is None:
        return None
    text = value.decode("latin-1").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, moment - now_us * 1e-6)
