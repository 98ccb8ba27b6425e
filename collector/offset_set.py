"""A set of spool offsets of one worker that stays small: offsets are dense, so a bit for each, and nothing for a
run that is whole.

Bits are kept in Python integers of 65,536, in one shared integer where all are set, so that ten million offsets
without a hole take some kilobytes and the holes are found a chunk at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl

CHUNK: Final = 1 << 16
_WHOLE: Final = (1 << CHUNK) - 1


class OffsetSet:
    """Offsets from 0 on."""

    def __init__(self) -> None:
        self._chunks: dict[int, int] = {}

    def add_all(self, offsets: pl.Series) -> int:
        """Add integers in any order; how many of them were repeated or there before."""
        repeated = 0
        frame = pl.DataFrame({"chunk": offsets // CHUNK, "bit": offsets % CHUNK})
        for (chunk,), part in frame.group_by("chunk"):
            mask = pl.zeros(CHUNK, pl.Boolean, eager=True).scatter(part["bit"], True)
            bits = int.from_bytes(bytes(mask.to_arrow().buffers()[1] or b""), "little") & _WHOLE
            before = self._chunks.get(chunk, 0)
            repeated += part.height - bits.bit_count() + (before & bits).bit_count()
            self._put(chunk, before | bits)
        return repeated

    def add_range(self, start: int, stop: int) -> None:
        """Add the offsets of ``range(start, stop)``."""
        while start < stop:
            chunk, low = divmod(start, CHUNK)
            high = min(CHUNK, low + stop - start)
            self._put(chunk, self._chunks.get(chunk, 0) | ((1 << high) - (1 << low)))
            start += high - low

    def bits(self, chunk: int) -> int:
        """The offsets ``[chunk * CHUNK, (chunk + 1) * CHUNK)``, the lowest as the lowest bit."""
        return self._chunks.get(chunk, 0)

    @property
    def end(self) -> int:
        """The offset behind the highest; 0 when there is none."""
        if not self._chunks:
            return 0
        last = max(self._chunks)
        return last * CHUNK + self._chunks[last].bit_length()

    def _put(self, chunk: int, bits: int) -> None:
        if bits:
            self._chunks[chunk] = _WHOLE if bits == _WHOLE else bits


def universe(chunk: int, end: int) -> int:
    """The bits of ``chunk`` that stand for offsets under ``end``."""
    return (1 << max(0, min(CHUNK, end - chunk * CHUNK))) - 1


def ranges(bits: int, chunk: int) -> Iterator[tuple[int, int]]:
    """The runs ``[start, stop)`` in the bits of a chunk, as offsets, ascending."""
    at = chunk * CHUNK
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        bits >>= skipped
        length = (~bits & (bits + 1)).bit_length() - 1
        yield at + skipped, at + skipped + length
        at += skipped + length
        bits >>= length
