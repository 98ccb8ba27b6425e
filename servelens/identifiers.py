"""Request ids: UUID version 7 (RFC 9562 §5.7), so that they sort by time and tables cluster by them."""

from __future__ import annotations

import os
import uuid
from hashlib import blake2b
from random import Random
from time import time_ns


class RequestIds:
    """Makes UUIDv7 strings that grow strictly. One instance belongs to one thread.

    The 12 bits of ``rand_a`` hold the fraction of the millisecond (RFC 9562 §6.2, method 3); when the clock stands
    still or goes back, the last timestamp is stepped by one unit instead. 62 pseudo-random bits, seeded from the
    kernel, keep processes apart: ids are unique, not secret.
    """

    def __init__(self) -> None:
        self.last_us = 0
        """When the last id was made, in microseconds since the Unix epoch: what :func:`time_us` reads from the id."""
        self._last = 0
        self._millisecond = -1
        self._prefix = ""
        self._bits = Random(os.urandom(32)).getrandbits

    def next(self) -> str:
        """A new id, such as ``0199f0c2-6c1e-7a31-9d0f-3f6f0f5f9b1a``."""
        now_ns = time_ns()
        stamp = (now_ns << 12) // 1_000_000  # units of 2⁻¹² ms
        if stamp <= self._last:
            stamp = self._last + 1
        self._last = stamp
        self.last_us = stamp * 1_000 >> 12
        millisecond = stamp >> 12
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            self._prefix = f"{millisecond >> 16:08x}-{millisecond & 0xFFFF:04x}-7"
        tail = self._bits(62)
        return "%s%03x-%04x-%012x" % (  # noqa: UP031 - twice as fast as an f-string here
            self._prefix,
            stamp & 0xFFF,
            0x8000 | tail >> 48,
            tail & 0xFFFF_FFFF_FFFF,
        )


def time_us(request_id: str) -> int:
    """The time in a UUIDv7, in microseconds since the Unix epoch (resolution 0.25 µs)."""
    value = uuid.UUID(request_id).int >> 64
    return (value >> 16) * 1_000 + (value & 0xFFF) * 1_000 // 4096


def id_at(moment_us: int, event: bytes) -> str:
    """The id of an ``event`` of that time (microseconds since the Unix epoch, not negative): a UUIDv7 whose 62 random
    bits are a hash of the event, so that whoever sees the event again gives it the same id. :func:`time_us` gives
    ``moment_us`` back.
    """
    stamp = -((-moment_us << 12) // 1_000)  # rounded up, as reading it rounds down
    tail = int.from_bytes(blake2b(event, digest_size=8).digest()) >> 2
    value = (stamp >> 12 & 0xFFFF_FFFF_FFFF) << 80 | 7 << 76 | (stamp & 0xFFF) << 64 | 2 << 62 | tail
    return str(uuid.UUID(int=value))
