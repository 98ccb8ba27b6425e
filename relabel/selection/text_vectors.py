"""Vectors of texts without a model: hashed words and character n-grams, so that nearly the same text has nearly the same
vector.

Feature hashing with signs (Weinberger et al. 2009, ICML) keeps the inner products of the sparse counts in expectation, with
an error of about 1/√dimensions for texts that have nothing in common. Half of the weight is words and pairs of words, half
is runs of 3 to 5 characters: one other number in a sentence counts, and so does nothing but a typing error. What is meant
is not seen: a paraphrase is another text.

Invariant: the same text has the same vector on every machine, in every run.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import numpy as np

DIMENSIONS: Final = 384
SPACE: Final = "text-1"
"""Names this way of making vectors: those of another are not to be compared with them."""

Vectors: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float32]]
_Hashes: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]
_Vector: TypeAlias = np.ndarray[tuple[int], np.dtype[np.float64]]

_RUNS: Final = (3, 4, 5)
_KEPT: Final = 2_000  # characters of either end of a long text
_WORD: Final = re.compile(r"\w+")
_SPACE: Final = re.compile(r"\s+")
_PRIME: Final = np.uint64(1_099_511_628_211)  # of FNV-1a, 64 bits
_MIX: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))  # of splitmix64


def text_vectors(texts: Sequence[str]) -> Vectors:
    """One row of :data:`DIMENSIONS` for each text, of length 1; what has no letter or digit has a row of its own kind."""
    rows = np.zeros((len(texts), DIMENSIONS), np.float32)
    for place, text in enumerate(texts):
        rows[place] = _vector(text)
    return rows


def _vector(text: str) -> _Vector:
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    if len(plain) > 2 * _KEPT:
        plain = f"{plain[:_KEPT]} {plain[-_KEPT:]}"
    words = _projected(_word_hashes(plain))
    runs = _projected(_run_hashes(plain))
    both = words + runs
    length = float(np.linalg.norm(both))
    if length == 0.0:
        both[zlib.crc32(plain.encode(errors="replace")) % DIMENSIONS] = length = 1.0
    return both / length


def _word_hashes(text: str) -> _Hashes:
    words = [word.encode(errors="replace") for word in _WORD.findall(text)]
    pairs = (first + b" " + second for first, second in pairwise(words))
    return np.fromiter((zlib.crc32(each) for each in (*words, *pairs)), np.uint64) + np.uint64(1 << 40)


def _run_hashes(text: str) -> _Hashes:
    codes = np.frombuffer(f" {text} ".encode("utf-32-le", errors="replace"), np.uint32).astype(np.uint64)
    found = []
    for length in _RUNS:
        count = codes.size - length + 1
        if count < 1:
            continue
        rolled = np.full(count, length, np.uint64)
        for offset in range(length):
            rolled = rolled * _PRIME + codes[offset : offset + count]
        found.append(rolled)
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


def _projected(hashes: _Hashes) -> _Vector:
    """Counts (damped) of the hashes, each in its place with its sign, of length 1 or all zero."""
    if hashes.size == 0:
        return np.zeros(DIMENSIONS)
    features, counts = np.unique(hashes, return_counts=True)
    mixed = features
    for factor, shift in zip(_MIX, (30, 27), strict=True):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * factor
    mixed ^= mixed >> np.uint64(31)
    places = (mixed % np.uint64(DIMENSIONS)).astype(np.intp)
    signs = np.where(mixed >> np.uint64(63), 1.0, -1.0)
    projected: _Vector = np.bincount(places, signs * (1.0 + np.log(counts)), minlength=DIMENSIONS).astype(
        np.float64
    )
    length = float(np.linalg.norm(projected))
    if length:
        projected /= length
    return projected
