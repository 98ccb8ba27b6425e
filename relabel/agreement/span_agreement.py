"""Agreement on marked parts of a text: F1 of one person's spans against another's.

F1 = 2 · matches / (spans of one + spans of the other), summed over all pairs of people and all cases. It takes no true
negatives, of which text has no number, and comes close to kappa where they are many (Hripcsak and Rothschild 2005,
"Agreement, the F-measure, and reliability in information retrieval"). ``exact``: same start, end and label. ``overlap``: same
label and at least one character in common, each span matched at most once, as many as can be. Interval: cases are resampled.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np

from relabel.agreement.bootstrap import RESAMPLES, resampled_interval
from relabel.agreement.measure import Measure, undetermined
from relabel.agreement.ratings import Floats

Span: TypeAlias = tuple[int, int, str]
"""Start, end (behind the last character) and label."""
Match: TypeAlias = Literal["exact", "overlap"]


def span_f1(
    cases: Iterable[Sequence[Sequence[Span]]], match: Match = "exact", *, resamples: int = RESAMPLES
) -> Measure:
    """F1 over ``cases``: of each the spans that each person marked, an empty list for somebody who marked none.

    Without a value when no case has labels of two people, or nobody marked anything.
    """
    found: Counter[tuple[int, int]] = Counter()
    for people in cases:
        if len(people) < 2:
            continue
        matched = total = 0
        for one, other in combinations(people, 2):
            matched += matches(one, other, match)
            total += len(one) + len(other)
        found[matched, total] += 1
    count = found.total()
    if count == 0:
        return undetermined(0, "no case has two labels")
    units = np.fromiter(found.values(), np.int64, len(found))
    pairs = np.array(list(found), dtype=np.float64)

    def statistic(weights: Floats) -> Floats:
        matched, total = (weights @ pairs).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(total > 0, 2 * matched / total, np.nan)

    value = float(statistic(units[None, :].astype(np.float64))[0])
    if np.isnan(value):
        return undetermined(count, "nobody marked anything")
    if value in (0.0, 1.0):
        return Measure(value, None, count, "all cases came out the same, which does not say how sure this is")
    interval = resampled_interval(value, units, statistic, low=0.0, resamples=resamples)
    return Measure(
        value, interval, count, None if interval else "the labels vary too little to say how sure this is"
    )


def matches(one: Sequence[Span], other: Sequence[Span], match: Match) -> int:
    """How many spans of ``one`` have a partner in ``other``."""
    if match == "exact" or not one or not other:
        return (Counter(one) & Counter(other)).total()
    partners: dict[str, tuple[list[Span], list[Span]]] = defaultdict(lambda: ([], []))
    for side, spans in enumerate((one, other)):
        for span in spans:
            partners[span[2]][side].append(span)
    return sum(_overlapping(*sides) for sides in partners.values())


def _overlapping(one: list[Span], other: list[Span]) -> int:
    """The largest matching of overlapping spans.

    The span that ends first of all is matched with the partner that ends first: all its partners hold its last character, so
    whatever else that one overlaps, a partner that ends later overlaps as well.
    """
    waiting: tuple[list[Span], list[Span]] = ([], [])
    order = sorted(
        [*((span, 0) for span in one), *((span, 1) for span in other)], key=lambda each: each[0][1]
    )
    waiting[0].extend(sorted(one, key=lambda span: span[1]))
    waiting[1].extend(sorted(other, key=lambda span: span[1]))
    found = 0
    for span, side in order:
        if span not in waiting[side]:
            continue
        waiting[side].remove(span)
        partner = next((each for each in waiting[1 - side] if each[0] < span[1] and span[0] < each[1]), None)
        if partner is not None:
            waiting[1 - side].remove(partner)
            found += 1
    return found
