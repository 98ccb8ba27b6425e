"""Makes the examples of a query, a chunk at a time, and counts what it makes.

Invariants: the same labels give the same lines in the same order; every case of the query is counted once, as one that gave
examples or by why it gave none; an example is given whole or not at all.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from relabel.export.case_tally import CaseTally
from relabel.export.dedupe import Seen
from relabel.export.formats.format import Part
from relabel.export.formats.registry import format_of
from relabel.export.labeled_case import LabeledCase
from relabel.export.left_out import LeftOut
from relabel.export.masking import Masking
from relabel.export.query import ExportQuery
from relabel.export.reader import newest_decision, read_asked, read_labeled
from relabel.export.split import SplitOfCases
from servelens.database import Database


class Place(NamedTuple):
    """Where an example belongs: the part of the format (``""``: its only one), and the split (``""``: there is none)."""

    part: str
    split: str


@dataclass(frozen=True, slots=True)
class Example:
    """A JSON object, and its line in a file (UTF-8, with the line's end)."""

    value: Mapping[str, Any]
    line: bytes


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """How many examples were ``written``, in all and by split (and part, as ``kto/train``), how many ``cases`` there were,
    and why cases or pairs of their answers gave no example (of a part, as ``kto/no_answer``). ``masked`` counts replaced
    personal data by kind.
    """

    written: int
    left_out: Mapping[str, int]
    cases: int = 0
    by_split: Mapping[str, int] | None = None
    masked: Mapping[str, int] | None = None


class Export:
    """The examples of ``query``. Each iteration begins anew, with the same labels: those up to :attr:`as_of`, which is fixed
    when it is first known.
    """

    def __init__(self, database: Database, query: ExportQuery) -> None:
        self._database = database
        self.query = query
        self.format = format_of(query.format)
        self._as_of: int | None = None
        self._split: SplitOfCases | None = None
        self._begin()

    @property
    def as_of(self) -> int:
        """The newest decision that is looked at. Raises what :func:`~relabel.export.reader.newest_decision` raises."""
        if self._as_of is None:
            newest = newest_decision(self._database)
            # A later one than there is would let labels in that come after this export.
            self._as_of = newest if self.query.as_of is None else min(newest, self.query.as_of)
        return self._as_of

    @property
    def summary(self) -> ExportSummary:
        """What has been given so far."""
        by_split: Counter[str] = Counter()
        for place, rows in self.written.items():
            by_split["/".join(filter(None, place))] += rows
        return ExportSummary(
            written=self.written.total(),
            left_out=dict(sorted(self._left_out.items())),
            cases=self.cases,
            by_split=dict(sorted(by_split.items()))
            if self.query.split or len(self.format.parts) > 1
            else None,
            masked=dict(sorted(self._masking.replaced.items())) if self.query.mask else None,
        )

    @property
    def split_report(self) -> Mapping[str, Any] | None:
        """The groups of the split, once it has begun."""
        return None if self._split is None else self._split.report()

    def __iter__(self) -> Iterator[Mapping[Place, list[Example]]]:
        """Chunks of examples by place, some of them empty. Raises :class:`~servelens.errors.Unavailable` when the database
        fails on the way.
        """
        self._begin()
        as_of = self.as_of
        if self.query.split is not None and self._split is None:
            asked = read_asked(self._database, self.query.endpoints, as_of)
            self._split = SplitOfCases(self.query.split, (case for chunk in asked for case in chunk))
        for cases in read_labeled(self._database, self.query, as_of):
            chunk: dict[Place, list[Example]] = {}
            for case in cases:
                self._add(case, chunk)
            yield chunk

    def _begin(self) -> None:
        self.cases = 0
        self.written: Counter[Place] = Counter()
        self.schema_versions: dict[str, set[int]] = {}
        self.tally = CaseTally()
        self._left_out: Counter[str] = Counter()
        self._masking = Masking(self.query.mask)
        self._seen = {name: Seen(self.query.dedupe) for name in self.format.parts}

    def _add(self, case: LabeledCase, chunk: dict[Place, list[Example]]) -> None:
        self.cases += 1
        split = "" if self._split is None else self._split.of(case.case_id)
        masked = self._masking.masked(case)
        lines: list[bytes] = []
        for name, part in self.format.parts.items():
            found = self._examples(case, masked, name, part)
            if found:
                chunk.setdefault(Place(name, split), []).extend(found)
                self.written[Place(name, split)] += len(found)
                lines += [split.encode(), *(example.line for example in found)]
        if lines:
            self.schema_versions.setdefault(case.endpoint, set()).add(case.schema_version)
            self.tally.add(case.case_id, lines)

    def _examples(self, case: LabeledCase, masked: LabeledCase, name: str, part: Part) -> list[Example]:
        seen = self._seen[name]
        if seen.repeats_case(case):
            self._leave_out(name, LeftOut.DUPLICATE)
            return []
        found: list[Example] = []
        for value in part.examples(masked):
            if isinstance(value, LeftOut):
                self._leave_out(name, value)
                continue
            line = _ENCODE(value).encode() + b"\n"
            if seen.repeats(line):
                self._leave_out(name, LeftOut.DUPLICATE)
            else:
                found.append(Example(value, line))
        if found:
            seen.gave(case)
        return found

    def _leave_out(self, part: str, reason: LeftOut) -> None:
        self._left_out[f"{part}/{reason}" if part else str(reason)] += 1


_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
