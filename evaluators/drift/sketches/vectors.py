"""Sketch of a column of vectors: their centroid exactly, and a random sample of them.

The sample is the ``SAMPLE`` rows with the smallest tags, where a row's tag is a hash of the request's id (a bottom-k
sketch: Cohen and Kaplan 2007, "Summarizing data using bottom-k sketches", PODC). Tags are as good as random, so the
sample is uniform; the smallest of two windows' smallest are the smallest of both, so merging gives the sample that all
rows together would have given. Vectors without ids get tags from a generator that is seeded by their bytes.

Vectors are scaled to length 1 first: directions are compared, and half precision, in which the sample is kept, holds
them to three digits. At 384 dimensions a full sketch takes 0.8 MB.

Invariant: vectors of different models, or of different lengths, are never added up: each model has a part of its own.
A vector that is not finite, or has no direction, counts as null.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, Self, TypeAlias

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from servelens.errors import Invalid

SAMPLE: Final = 1_000
VECTOR: Final = pl.Struct({"key": pl.UInt64, "model": pl.String, "vector": pl.List(pl.Float32)})
"""What a source gives for a vector of a known model; ``key``: :func:`keys` of the request's id. Plain lists or arrays
of ``Float32`` are of one model without a name."""

Vectors: TypeAlias = NDArray[np.float32]
Keys: TypeAlias = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class VectorPart:
    """The vectors of one model: how many, their sum, and the sample with its tags, the smallest first."""

    count: int
    total: NDArray[np.float64]
    tags: Keys
    sample: NDArray[np.float16]

    @property
    def dimensions(self) -> int:
        return self.total.size


class _StoredPart(msgspec.Struct, array_like=True):
    model: str
    count: int
    total: bytes
    tags: bytes
    sample: bytes


class _Stored(msgspec.Struct, array_like=True):
    format: str
    rows: int
    parts: list[_StoredPart]


@dataclass(frozen=True, slots=True)
class VectorSketch:
    """The vectors of a column, by the model that made them and their length: ``parts`` by ``(model, dimensions)``."""

    FORMAT: ClassVar[str] = f"vector-1-{SAMPLE}"

    rows: int
    parts: Mapping[tuple[str, int], VectorPart]

    @property
    def count(self) -> int:
        """Rows with a vector."""
        return sum(part.count for part in self.parts.values())

    @property
    def nulls(self) -> int:
        """Rows without one."""
        return self.rows - self.count

    @classmethod
    def of(cls, series: pl.Series) -> Self:
        """The sketch of a series of type :data:`VECTOR`, or of lists or arrays of numbers."""
        if series.dtype == pl.Null:
            return cls.of_nulls(series.len())
        if isinstance(series.dtype, pl.Struct):
            frame = series.struct.unnest().select("key", "model", "vector")
        else:
            frame = pl.DataFrame({"vector": series}).with_columns(
                pl.lit(None, pl.UInt64).alias("key"), pl.lit("").alias("model")
            )
        frame = frame.with_columns(pl.col("vector").cast(pl.List(pl.Float32))).filter(
            pl.col("vector").list.len() > 0, pl.col("model").is_not_null()
        )
        parts: dict[tuple[str, int], VectorPart] = {}
        grouped = frame.group_by("model", pl.col("vector").list.len().alias("length"), maintain_order=True)
        for (model, length), rows in grouped:
            part = _part(rows, int(str(length)))
            if part is not None:
                parts[str(model), part.dimensions] = part
        return cls(series.len(), parts)

    @classmethod
    def of_nulls(cls, rows: int) -> Self:
        return cls(rows, {})

    @classmethod
    def merged(cls, sketches: Sequence[Self]) -> Self:
        names = dict.fromkeys(name for sketch in sketches for name in sketch.parts)
        return cls(
            sum(sketch.rows for sketch in sketches),
            {
                name: _together([sketch.parts[name] for sketch in sketches if name in sketch.parts])
                for name in sorted(names)
            },
        )

    def to_bytes(self) -> bytes:
        return msgspec.msgpack.encode(
            _Stored(
                self.FORMAT,
                self.rows,
                [
                    _StoredPart(
                        model,
                        part.count,
                        part.total.astype("<f8").tobytes(),
                        part.tags.astype("<u8").tobytes(),
                        part.sample.astype("<f2").tobytes(),
                    )
                    for (model, _), part in self.parts.items()
                ],
            )
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        try:
            stored = msgspec.msgpack.decode(data, type=_Stored)
            if stored.format != cls.FORMAT:
                raise ValueError(f"the format is {stored.format!r}, not {cls.FORMAT!r}")
            parts = {}
            for each in stored.parts:
                total = np.frombuffer(each.total, "<f8")
                tags = np.frombuffer(each.tags, "<u8")
                sample = np.frombuffer(each.sample, "<f2").reshape(tags.size, total.size)
                parts[each.model, total.size] = VectorPart(each.count, total, tags, sample)
        except (msgspec.MsgspecError, ValueError) as error:
            raise Invalid(f"not a sketch of vectors: {error}", field="sketch") from error
        return cls(stored.rows, parts)


def keys(request_ids: pl.Series) -> pl.Series:
    """A 64-bit hash of each id, the same on every machine and in every version."""
    hashes = [
        None
        if each is None
        else int.from_bytes(hashlib.blake2b(each.encode(), digest_size=8).digest(), "little")
        for each in request_ids
    ]
    return pl.Series("key", hashes, dtype=pl.UInt64)


def unit_vectors(vectors: NDArray[np.floating]) -> tuple[Vectors, NDArray[np.bool_]]:
    """``vectors`` (rows) scaled to length 1, without those that are not finite or have no direction; which are there."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    usable = np.isfinite(lengths) & (lengths > 0)
    return (vectors[usable] / lengths[usable, None]).astype(np.float32), usable


def _part(rows: pl.DataFrame, length: int) -> VectorPart | None:
    flat = rows["vector"].explode(empty_as_null=False, keep_nulls=True)
    if flat.null_count():
        flat = flat.fill_null(float("nan"))
    vectors, usable = unit_vectors(flat.to_numpy().reshape(rows.height, length))
    if not vectors.size:
        return None
    tags = _tags(rows["key"], vectors, usable)
    smallest = _smallest(tags)
    return VectorPart(
        count=len(vectors),
        total=vectors.sum(axis=0, dtype=np.float64),
        tags=tags[smallest],
        sample=vectors[smallest].astype(np.float16),
    )


def _tags(given: pl.Series, vectors: Vectors, usable: NDArray[np.bool_]) -> Keys:
    if given.null_count() == 0:
        tags: Keys = given.to_numpy()[usable]
        return tags
    seed = hashlib.blake2b(np.ascontiguousarray(vectors).tobytes(), digest_size=16).digest()
    generator = np.random.default_rng(int.from_bytes(seed, "little"))
    return generator.integers(0, 2**64, size=len(vectors), dtype=np.uint64)


def _smallest(tags: Keys) -> NDArray[np.intp]:
    if tags.size > SAMPLE:
        chosen = np.argpartition(tags, SAMPLE)[:SAMPLE]
        return chosen[np.argsort(tags[chosen], kind="stable")]
    return np.argsort(tags, kind="stable")


def _together(parts: Sequence[VectorPart]) -> VectorPart:
    if len(parts) == 1:
        return parts[0]
    tags = np.concatenate([part.tags for part in parts])
    sample = np.concatenate([part.sample for part in parts])
    smallest = _smallest(tags)
    return VectorPart(
        count=sum(part.count for part in parts),
        total=np.sum([part.total for part in parts], axis=0),
        tags=tags[smallest],
        sample=sample[smallest],
    )
