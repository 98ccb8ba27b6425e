"""The vectors of an endpoint's recent cases, in memory while selection runs: what is a near duplicate of which, and which
cluster a record belongs to.

Clusters are made by a leader (Hartigan 1975, Clustering Algorithms, ch. 3): a case joins the cluster of the leader that it
is most like, if it is enough like it, and else leads one of its own. It needs one pass and no number of clusters, and its
result depends on the order.

Invariants: memory is bounded by :data:`MOST` vectors, the newest; two records are as alike as the less alike of their two
sides, so the same answer to another question is not the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, TypeAlias

import numpy as np
from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from relabel.models import VectorRow
from servelens.database import Database

MOST: Final = 20_000
_READ: Final = 2_000
_DELETED_AT_ONCE: Final = 500

Vectors: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float32]]
Likeness: TypeAlias = np.ndarray[tuple[int, int], np.dtype[np.float32]]
_Numbers: TypeAlias = np.ndarray[tuple[int], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True)
class Nearest:
    """To one record: the most alike case (``None`` without any) and the leader that is; cosines."""

    case_id: int | None
    similarity: float
    cluster: int | None
    to_leader: float


class RecentVectors:
    """Those of one space, at most :data:`MOST`."""

    def __init__(self, size: int) -> None:
        self._vectors: Vectors = np.empty((0, size), np.float32)
        self._cases: _Numbers = np.empty(0, np.int64)
        self._clusters: _Numbers = np.empty(0, np.int64)
        self._count = 0

    def add(self, vectors: Vectors, cases: Sequence[int], clusters: Sequence[int]) -> None:
        """One row each; later ones are newer."""
        needed = self._count + len(cases)
        if needed > len(self._cases):
            self._resize(needed)
        if len(cases) > len(self._cases) - self._count:
            kept = max(len(self._cases) - len(cases), 0)
            for held in (self._vectors, self._cases, self._clusters):
                held[:kept] = held[self._count - kept : self._count].copy()
            self._count = kept
        room = len(self._cases) - self._count
        given = slice(max(len(cases) - room, 0), None)
        end = self._count + len(cases[given])
        self._vectors[self._count : end] = vectors[given]
        self._cases[self._count : end] = cases[given]
        self._clusters[self._count : end] = clusters[given]
        self._count = end

    def nearest(self, vectors: Vectors) -> list[Nearest]:
        """For each row, of the same size as those here."""
        if self._count == 0:
            return [Nearest(None, -1.0, None, -1.0)] * len(vectors)
        cases, clusters = self._cases[: self._count], self._clusters[: self._count]
        alike = likeness(vectors, self._vectors[: self._count])
        best = alike.argmax(axis=1)
        leaders = np.flatnonzero(cases == clusters)
        to_leaders = alike[:, leaders]
        led = to_leaders.argmax(axis=1) if leaders.size else None
        found = []
        for row in range(len(vectors)):
            leader = None if led is None else int(leaders[led[row]])
            found.append(
                Nearest(
                    int(cases[best[row]]),
                    float(alike[row, best[row]]),
                    None if leader is None else int(cases[leader]),
                    -1.0 if leader is None else float(alike[row, leader]),
                )
            )
        return found

    def _resize(self, needed: int) -> None:
        room = min(MOST, max(needed, 2 * len(self._cases), 256))
        if room <= len(self._cases):
            return
        grown = np.empty((room, self._vectors.shape[1]), np.float32)
        grown[: self._count] = self._vectors[: self._count]
        cases, clusters = np.empty(room, np.int64), np.empty(room, np.int64)
        cases[: self._count] = self._cases[: self._count]
        clusters[: self._count] = self._clusters[: self._count]
        self._vectors, self._cases, self._clusters = grown, cases, clusters


def likeness(left: Vectors, right: Vectors) -> Likeness:
    """Cosines, rows by rows: of the less alike of the two sides that each vector has."""
    half = left.shape[1] // 2
    # Each side is 1/√2 long in a vector of length 1.
    alike = left[:, :half] @ right[:, :half].T
    np.minimum(alike, left[:, half:] @ right[:, half:].T, out=alike)
    alike *= 2.0
    return alike


def read_recent(database: Database, endpoint: str, space: str, size: int, since: datetime) -> RecentVectors:
    """The vectors of cases made at ``since`` or later, the newest :data:`MOST`."""
    recent = RecentVectors(size)
    wanted = (
        select(VectorRow.case_id, VectorRow.cluster, VectorRow.vector)
        .where(VectorRow.endpoint == endpoint, VectorRow.space == space, VectorRow.created_at >= since)
        .order_by(VectorRow.created_at.desc(), VectorRow.case_id.desc())
        .limit(MOST)
    )
    parts: list[tuple[Vectors, list[int], list[int]]] = []
    with database.session(read_only=True) as session:
        for rows in session.execute(wanted).partitions(_READ):
            usable = [row for row in rows if len(row.vector) == 4 * size]
            flat = np.frombuffer(b"".join(row.vector for row in usable), "<f4").astype(np.float32)
            parts.append(
                (
                    flat.reshape(len(usable), size),
                    [row.case_id for row in usable],
                    [row.cluster for row in usable],
                )
            )
    for vectors, cases, clusters in reversed(parts):
        recent.add(vectors[::-1], cases[::-1], clusters[::-1])
    return recent


def clusters_since(session: Session, endpoint: str, since: datetime) -> dict[int, int]:
    """How many cases each cluster got from ``since`` on."""
    counted = (
        select(VectorRow.cluster, func.count())
        .where(VectorRow.endpoint == endpoint, VectorRow.created_at >= since)
        .group_by(VectorRow.cluster)
    )
    return {row[0]: row[1] for row in session.execute(counted)}


def prune_vectors(database: Database, endpoint: str, before: datetime) -> int:
    """Delete the vectors that nothing is compared with any more: older than ``before``, or beyond the newest
    :data:`MOST`. How many; in small transactions."""
    with database.session(read_only=True) as session:
        oldest_kept = session.scalar(
            select(VectorRow.created_at)
            .where(VectorRow.endpoint == endpoint)
            .order_by(VectorRow.created_at.desc())
            .offset(MOST - 1)
            .limit(1)
        )
    limit = before if oldest_kept is None else max(before, oldest_kept)
    gone = 0
    while True:
        with database.session(read_only=True) as session:
            ids = session.scalars(
                select(VectorRow.case_id)
                .where(VectorRow.endpoint == endpoint, VectorRow.created_at < limit)
                .limit(_DELETED_AT_ONCE)
            ).all()
        if not ids:
            return gone
        with database.session() as session:
            session.execute(delete(VectorRow).where(VectorRow.case_id.in_(ids)))
        gone += len(ids)
