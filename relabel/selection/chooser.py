"""Which of the records that rules found become cases: not more than budgets allow, and not many that are alike.

Records are looked at in the order in which they are given, so the first ones get what there is room for. A record that
nearly repeats a case joins it and costs no budget. What is left out is left out for good; that it was is counted.

Invariant: records of the control sample are never left out for being alike (see :mod:`.sources.control_sample`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import numpy as np

from collector.table import Table
from relabel.selection.case_writer import Flagged, Placement, Stored
from relabel.selection.recent_vectors import (
    Nearest,
    RecentVectors,
    Vectors,
    clusters_since,
    likeness,
    read_recent,
)
from relabel.selection.record_vectors import RecordVector, record_vectors
from relabel.selection.suppression import Suppression
from servelens.database import Database


@dataclass(slots=True)
class Choice:
    """``taken`` are to be stored as ``placements`` say, in this order; ``charged`` are the rules whose budget each new case
    counts against. The others were left out."""

    taken: list[Flagged] = field(default_factory=list)
    placements: dict[str, Placement] = field(default_factory=dict)
    charged: dict[str, tuple[str, ...]] = field(default_factory=dict)
    over_budget: list[Flagged] = field(default_factory=list)
    over_cluster: list[Flagged] = field(default_factory=list)


class Chooser:
    """For one run of a selection; what it remembers is forgotten with it. ``is_control`` says of an id whether the record is
    in the control sample, for whichever rule it was found."""

    def __init__(
        self,
        database: Database,
        endpoint: str,
        embeddings: Table,
        suppression: Suppression,
        is_control: Callable[[str], bool],
    ) -> None:
        self._database = database
        self._endpoint = endpoint
        self._embeddings = embeddings
        self._suppression = suppression
        self._is_control = is_control
        self._recent: dict[str, RecentVectors] = {}
        self._clusters: Counter[int | str] = Counter()
        self._day: date | None = None
        self._vectors: dict[str, RecordVector] = {}

    def choose(
        self,
        records: Sequence[Flagged],
        contents: Mapping[str, int],
        left: Mapping[str, int | None],
        now: datetime,
    ) -> Choice:
        """Choose among ``records``, none of which is a case. ``contents`` are hashes of contents that are; ``left`` is what
        is left of each rule's budget (``None``: it has none)."""
        choice, left = Choice(), dict(left)
        seen = set(contents)
        fresh = [record for record in records if record.conversation.content_hash not in seen]
        alike = self._compared(fresh, now)
        for record in records:
            content, request_id = record.conversation.content_hash, record.databricks_request_id
            if content in seen:
                choice.taken.append(record)
                continue
            charged = tuple(reason.rule for reason in record.reasons if left.get(reason.rule) != 0)
            placement = alike.place(record, self._is_control(request_id)) if alike else Placement()
            if placement is not None and placement.near is not None:
                choice.placements[request_id] = placement
            elif not charged:
                choice.over_budget.append(record)
                continue
            elif placement is None:
                choice.over_cluster.append(record)
                continue
            else:
                choice.placements[request_id] = placement
                choice.charged[request_id] = charged
                for rule in charged:
                    if (budget := left.get(rule)) is not None:
                        left[rule] = budget - 1
                if alike:
                    alike.accept(record, placement)
                seen.add(content)
            choice.taken.append(record)
        return choice

    def remember(self, choice: Choice, stored: Stored) -> None:
        """``stored`` is what became of the choice: later records are compared with its new cases."""
        by_space: dict[str, list[tuple[RecordVector, int, int]]] = {}
        for request_id in choice.charged:
            vector = self._vectors.get(request_id)
            if vector is None or request_id not in stored.new:
                continue
            cluster = choice.placements[request_id].cluster
            case_id = stored.cases[request_id]
            leader = (
                case_id if cluster is None else stored.cases[cluster] if isinstance(cluster, str) else cluster
            )
            self._clusters[leader] += 1
            by_space.setdefault(vector.space, []).append((vector, case_id, leader))
        for space, rows in by_space.items():
            self._recent[space].add(
                np.stack([vector.vector for vector, _, _ in rows]),
                [case_id for _, case_id, _ in rows],
                [leader for _, _, leader in rows],
            )
        self._vectors = {}

    def _compared(self, fresh: Sequence[Flagged], now: datetime) -> _Alike | None:
        if not self._suppression.is_on or not fresh:
            return None
        self._begin_day(now)
        self._vectors = record_vectors(self._embeddings, fresh)
        alike = _Alike(self._suppression, self._clusters)
        by_space: dict[str, list[str]] = {}
        for request_id, vector in self._vectors.items():
            by_space.setdefault(vector.space, []).append(request_id)
        for space, ids in by_space.items():
            rows = np.stack([self._vectors[request_id].vector for request_id in ids])
            alike.add(space, ids, rows, self._recent_of(space, rows.shape[1], now).nearest(rows))
        return alike

    def _recent_of(self, space: str, size: int, now: datetime) -> RecentVectors:
        if space not in self._recent:
            since = now - timedelta(days=self._suppression.days)
            self._recent[space] = read_recent(self._database, self._endpoint, space, size, since)
        return self._recent[space]

    def _begin_day(self, now: datetime) -> None:
        if self._day == now.date():
            return
        self._day = now.date()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        with self._database.session(read_only=True) as session:
            of_today = clusters_since(session, self._endpoint, midnight)
        self._clusters = Counter()
        self._clusters.update(of_today)


class _Alike:
    """The likeness of the records of one call to recent cases, and to each other as they are accepted."""

    def __init__(self, suppression: Suppression, clusters: Mapping[int | str, int]) -> None:
        self._suppression = suppression
        self._before = clusters
        self._new: Counter[int | str] = Counter()
        self._spaces: dict[str, _Space] = {}
        self._of: dict[str, tuple[_Space, int]] = {}

    def add(self, space: str, ids: Sequence[str], rows: Vectors, nearest: Sequence[Nearest]) -> None:
        held = _Space(space, ids, rows, nearest)
        self._spaces[space] = held
        for place, request_id in enumerate(ids):
            self._of[request_id] = (held, place)

    def place(self, record: Flagged, is_control: bool) -> Placement | None:
        """``None`` when its cluster has had enough."""
        space, place = self._of[record.databricks_request_id]
        near, similarity = space.most_alike(place)
        limit = self._suppression.near_duplicate
        if limit is not None and near is not None and similarity >= limit and not is_control:
            return Placement(near=near, similarity=min(similarity, 1.0))
        cluster, to_leader = space.leader(place)
        if cluster is None or to_leader < self._suppression.cluster:
            cluster = None
        most = self._suppression.max_per_cluster
        had = 0 if cluster is None else self._before.get(cluster, 0) + self._new[cluster]
        if most is not None and had >= most and not is_control:
            return None
        return Placement(space=space.name, vector=space.rows[place].astype("<f4").tobytes(), cluster=cluster)

    def accept(self, record: Flagged, placement: Placement) -> None:
        """It will be a case."""
        space, place = self._of[record.databricks_request_id]
        space.accepted[place] = True
        space.leads[place] = placement.cluster is None
        self._new[record.databricks_request_id if placement.cluster is None else placement.cluster] += 1


class _Space:
    def __init__(self, name: str, ids: Sequence[str], rows: Vectors, nearest: Sequence[Nearest]) -> None:
        self.name = name
        self.rows = rows
        self._ids = ids
        self._nearest = nearest
        self._mutual = likeness(rows, rows)
        self.accepted = np.zeros(len(ids), np.bool_)
        self.leads = np.zeros(len(ids), np.bool_)

    def most_alike(self, place: int) -> tuple[int | str | None, float]:
        nearest = self._nearest[place]
        return self._better(place, self.accepted, nearest.case_id, nearest.similarity)

    def leader(self, place: int) -> tuple[int | str | None, float]:
        nearest = self._nearest[place]
        return self._better(place, self.leads, nearest.cluster, nearest.to_leader)

    def _better(
        self,
        place: int,
        among: np.ndarray[tuple[int], np.dtype[np.bool_]],
        known: int | None,
        similarity: float,
    ) -> tuple[int | str | None, float]:
        """The most alike of this call's ``among``, or the ``known`` case."""
        row = np.where(among, self._mutual[place], np.float32(-2.0))
        best = int(row.argmax())
        if among[best] and (known is None or row[best] > similarity):
            return self._ids[best], float(row[best])
        return known, similarity
