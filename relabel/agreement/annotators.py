"""Each annotator: how much they labeled, how quickly, and how often they were right.

*Gold accuracy* is the share of gold cases whose known answer they gave. *Agreement with the decision* is the share of their
labels that say what the case's label came to be, over decided cases with two labels or more; their own label is one of those
that made it, so it flatters everybody, and those most who label cases with few others.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from relabel.agreement.answers import NO_VERDICT, LabelTable
from relabel.agreement.measure import Measure, undetermined, wilson


@dataclass(frozen=True, slots=True)
class AnnotatorReport:
    """``labels`` includes ``adjudications`` and those of gold cases; ``median_s`` is over the ``timed`` ones."""

    annotator: str
    labels: int
    adjudications: int
    skips: int
    timed: int
    median_s: float | None
    gold: Measure
    decision: Measure

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self)


def annotator_reports(table: LabelTable) -> list[AnnotatorReport]:
    """Everybody who labeled or skipped, who labeled most first."""
    agreed = _with_decisions(table)
    found = []
    for person, name in enumerate(table.people):
        seconds = table.seconds.get(person, [])
        right = table.gold.get(person, [])
        found.append(
            AnnotatorReport(
                annotator=name,
                labels=table.counts[person],
                adjudications=table.adjudications[person],
                skips=table.skips[person],
                timed=len(seconds),
                median_s=median(seconds) if seconds else None,
                gold=_share(right, "no gold case was labeled"),
                decision=_share(agreed[person], "no decided case has this label and another"),
            )
        )
    return sorted(found, key=lambda each: (-each.labels, each.annotator))


def _share(outcomes: list[bool], nothing: str) -> Measure:
    if not outcomes:
        return undetermined(0, nothing)
    share = sum(outcomes) / len(outcomes)
    return Measure(share, wilson(share, len(outcomes)), len(outcomes))


def _with_decisions(table: LabelTable) -> dict[int, list[bool]]:
    verdict_of = dict(zip(table.label_ids, table.verdicts, strict=True))
    others: dict[int, int] = defaultdict(int)
    for case in table.cases:
        others[case] += 1
    agreed: dict[int, list[bool]] = defaultdict(list)
    for label, case, person, verdict in zip(
        table.label_ids, table.cases, table.givers, table.verdicts, strict=True
    ):
        decided, _ = table.decisions.get(case, (None, 0))
        if decided is None or verdict == NO_VERDICT or others[case] < 2:
            continue
        final = verdict_of.get(decided, NO_VERDICT)
        if final == NO_VERDICT or table.verdict_fields[final] != table.verdict_fields[verdict]:
            continue
        if label in table.adjudicated and label == decided:
            continue
        agreed[person].append(verdict == final)
    return agreed
