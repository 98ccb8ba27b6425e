"""Recognises a chunk of a chunked body that came in one piece, so that it need be neither parsed nor put together again.

Where the parser stands between two chunks, bytes that are exactly one more (RFC 9112 §7.1, without extensions, its size
as servers write it: hexadecimal digits of one case, no leading zeros) can be told from their length. The last chunk, and
everything else, goes to the parser, which has then seen nothing but whole chunks less.
"""

from __future__ import annotations

from functools import lru_cache


def chunk_data(framed: bytes) -> bytes | None:
    """The data of the chunk that ``framed`` is, when it is just that and not the last."""
    lines = _size_lines(len(framed))
    if framed.startswith(lines) and framed.endswith(b"\r\n"):
        return framed[len(lines[0]) : -2]
    return None


@lru_cache(maxsize=4096)
def _size_lines(length: int) -> tuple[bytes, ...]:
    """How a chunk of this length, all in all, can begin."""
    for digits in range(1, 9):
        size = length - digits - 4
        if size > 0 and len(f"{size:x}") == digits:
            return (b"%x\r\n" % size, b"%X\r\n" % size)
    return ()
