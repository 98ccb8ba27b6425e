"""Vectors of texts without a model: hashed words and character n-grams, so that nearly the same text has nearly the same
vector.

Feature hashing with signs (Weinberger et al. 2009, ICML) keeps the inner products of the sparse counts in expectation, with
an error of about 1/√dimensions for texts that have nothing in common. Half of the weight is words and pairs of words, half
is runs of 3 to 5 characters: one other number in a sentence counts, and so does nothing but a typing error. What is meant
is not seen: a paraphrase is another text.

Invariant: the same text has the same vector on every machine, in every run, whatever is beside it.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np

DIMENSIONS: Final = 256
SPACE: Final = "text-1"
"""Names this way of making vectors: those of another are not to be compared with them."""

Vectors: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float32]]
_Words: TypeAlias = np.ndarray[tuple[int], np.dtype[np.uint64]]
_Rows: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]
_Sums: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float64]]

_AT_ONCE: Final = 64  # texts; bounds what is held beside the vectors
_RUNS: Final = (3, 4, 5)
_KEPT: Final = 2_000  # characters of either end of a long text
_WORD: Final = re.compile(r"\w+")
_SPACE: Final = re.compile(r"\s+")
_PRIME: Final = np.uint64(1_099_511_628_211)  # of FNV-1a, 64 bits
_MIX: Final = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))  # of splitmix64
_HASH_BITS: Final = np.uint64(48)


def text_vectors(texts: Sequence[str]) -> Vectors:
    """One row of :data:`DIMENSIONS` for each text, of length 1; what has no letter or digit has a row of its own kind."""
    rows = np.zeros((len(texts), DIMENSIONS), np.float32)
    for first in range(0, len(texts), _AT_ONCE):
        plain = [_plain(text) for text in texts[first : first + _AT_ONCE]]
        both = _projected(*_word_hashes(plain), len(plain)) + _projected(*_run_hashes(plain), len(plain))
        lengths = np.linalg.norm(both, axis=1)
        for place in np.flatnonzero(lengths == 0.0):
            both[place, zlib.crc32(plain[place].encode(errors="replace")) % DIMENSIONS] = lengths[place] = 1.0
        rows[first : first + len(plain)] = both / lengths[:, None]
    return rows


def _plain(text: str) -> str:
    plain = _SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return plain if len(plain) <= 2 * _KEPT else f"{plain[:_KEPT]} {plain[-_KEPT:]}"


def _word_hashes(texts: Sequence[str]) -> tuple[_Words, _Rows]:
    """Hashes of the words and of the pairs of words, each with the row of its text."""
    found = [[zlib.crc32(word.encode(errors="replace")) for word in _WORD.findall(text)] for text in texts]
    counts = [len(words) for words in found]
    rows = np.repeat(np.arange(len(texts)), counts)
    words = np.fromiter((word for of_text in found for word in of_text), np.uint64, sum(counts))
    pairs = words[:-1] * _PRIME + words[1:]
    within = rows[:-1] == rows[1:]
    return np.concatenate([words, pairs[within]]), np.concatenate([rows, rows[:-1][within]])


def _run_hashes(texts: Sequence[str]) -> tuple[_Words, _Rows]:
    """Hashes of the runs of characters, each with the row of its text."""
    padded = [f" {text} ".encode("utf-32-le", errors="replace") for text in texts]
    codes = np.frombuffer(b"".join(padded), "<u4").astype(np.uint64)
    rows = np.repeat(np.arange(len(texts)), [len(text) // 4 for text in padded])
    hashes, of_hashes = [], []
    for length in _RUNS:
        count = max(codes.size - length + 1, 0)
        rolled = np.full(count, length, np.uint64)
        for offset in range(length):
            rolled = rolled * _PRIME + codes[offset : offset + count]
        within = rows[:count] == rows[length - 1 : length - 1 + count]
        hashes.append(rolled[within])
        of_hashes.append(rows[:count][within])
    return np.concatenate(hashes), np.concatenate(of_hashes)


def _projected(hashes: _Words, rows: _Rows, count: int) -> _Sums:
    """Per row the damped counts of its hashes, each in its place with its sign, of length 1 or all zero."""
    mixed = hashes
    for shift, factor in _MIX:
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * factor
    kept = (mixed ^ (mixed >> np.uint64(31))) >> (np.uint64(64) - _HASH_BITS)
    features, counts = np.unique(rows.astype(np.uint64) << _HASH_BITS | kept, return_counts=True)
    row = (features >> _HASH_BITS).astype(np.int64)
    signs = np.where(features >> (_HASH_BITS - np.uint64(1)) & np.uint64(1), 1.0, -1.0)
    places = row * DIMENSIONS + (features % np.uint64(DIMENSIONS)).astype(np.int64)
    sums = np.bincount(places, signs * (1.0 + np.log(counts)), minlength=count * DIMENSIONS)
    projected: _Sums = sums.reshape(count, DIMENSIONS).astype(np.float64)
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)
    np.divide(projected, lengths, out=projected, where=lengths > 0)
    return projected
