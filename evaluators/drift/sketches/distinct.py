"""How many different values there are, once they are too many to keep: the k smallest hashes (KMV).

Bar-Yossef et al. (2002), RANDOM; Beyer et al. (2007), SIGMOD: with k hashes the estimate (k − 1)/U₍k₎ has a relative
standard error of 1/√(k − 2), about 3 % here. Two sketches merge into that of the union exactly.

Invariant: a hash is the same in every process, on every machine and with every version of a library, since it is kept:
numbers by SplitMix64 (Steele et al. 2014, OOPSLA) of their bits, texts by BLAKE2b (RFC 7693) of their UTF-8.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Hashes: TypeAlias = NDArray[np.uint64]

KEPT: Final = 1024
_AT_ONCE: Final = 1 << 14
_RANGE: Final = 2.0**64


def number_hashes(values: NDArray[np.float64]) -> Hashes:
    """Hashes of finite numbers, zero without a sign; ``values`` may hold one several times."""
    found: Hashes = np.empty(0, dtype=np.uint64)
    for start in range(
        0, values.size, _AT_ONCE
    ):  # a block stays in the cache, and few of the later ones get further
        hashes = _mixed(values[start : start + _AT_ONCE].view(np.uint64))
        if found.size == KEPT:
            hashes = hashes[hashes < found[-1]]
        found = smallest(np.concatenate([found, hashes]))
    return found


def _mixed(bits: Hashes) -> Hashes:
    bits = bits + np.uint64(0x9E3779B97F4A7C15)
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits


def text_hashes(texts: Iterable[str]) -> Hashes:
    """Hashes of texts, which may occur several times."""
    digests = b"".join(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts
    )
    return smallest(np.frombuffer(digests, dtype="<u8").astype(np.uint64))


def smallest(hashes: Hashes) -> Hashes:
    """The :data:`KEPT` smallest of ``hashes``, sorted, each once."""
    ordered = np.sort(hashes)
    first = np.ones(ordered.size, dtype=np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first][:KEPT]


def union(parts: Sequence[Hashes]) -> Hashes:
    """The hashes of all values of ``parts`` (at least one) together."""
    return smallest(np.concatenate(parts))


def estimated(hashes: Hashes) -> int:
    """How many different values there were: exact below :data:`KEPT`, else with a standard error of 3 %."""
    if hashes.size < KEPT:
        return int(hashes.size)
    return round((KEPT - 1) / ((float(hashes[KEPT - 1]) + 1.0) / _RANGE))
