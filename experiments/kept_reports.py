"""Which reports of an experiment are kept: all of the last minutes, and the older they are, the fewer.

A look every 15 seconds would leave 5,760 reports a day, of 20 to 50 kB each. What reports are kept for needs far fewer: the
newest is shown, the others are the points of a chart over the experiment's life, and any of them can be replayed.

Invariant: of a span of time (two minutes within the last hour, a day from two weeks on) the last report stays; so do the
first one of all, and each that a decision rests on, however old they are. Spans begin at fixed times and hold each other, so
which reports are kept does not depend on when it was tidied up.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from experiments.models import AnalysisRow, DecisionRow

# (younger than, one report for each): seconds.
_FIRST_SPAN_S: Final = 120.0
_SPANS: Final = ((300.0, 0.0), (3_600.0, _FIRST_SPAN_S), (86_400.0, 1_800.0), (14 * 86_400.0, 21_600.0))
_LAST_SPAN_S: Final = 86_400.0
# A database of an older release may have a hundred thousand of them: not all in one transaction.
_MOST_AT_ONCE: Final = 500


def is_due(before: datetime, now: datetime) -> bool:
    """Whether there may be something to tidy up ``now``, after the report of ``before``: once in the shortest span."""
    return before.timestamp() // _FIRST_SPAN_S != now.timestamp() // _FIRST_SPAN_S


def tidy(session: Session, experiment: str, now: datetime) -> None:
    """Remove what need not be kept at ``now``, the oldest first and not too many at once."""
    query = select(AnalysisRow.id, AnalysisRow.as_of).where(AnalysisRow.experiment == experiment)
    reports = [(number, as_of) for number, as_of in session.execute(query.order_by(AnalysisRow.id))]
    found = superfluous(reports, now)
    if not found:
        return
    times, needed = dict(reports), decided_on(session, experiment)
    gone = [number for number in found if times[number].isoformat() not in needed]
    session.execute(delete(AnalysisRow).where(AnalysisRow.id.in_(gone[:_MOST_AT_ONCE])))


def superfluous(reports: Sequence[tuple[int, datetime]], now: datetime) -> list[int]:
    """The ids of those of ``reports`` (id and time, in the order of their ids) that others stand for at ``now``."""
    last: dict[tuple[float, float], int] = {}
    gone = []
    for number, as_of in reports[1:]:
        span = _span((now - as_of).total_seconds())
        if span:
            key = (span, as_of.timestamp() // span)
            if key in last:
                gone.append(last[key])
            last[key] = number
    return sorted(gone)


def decided_on(session: Session, experiment: str, as_of: datetime | None = None) -> set[str]:
    """The times, as they are written in reports, of the reports that decisions name as what they rest on; with ``as_of``
    that one alone, if there is one.
    """
    named = DecisionRow.evidence["as_of"].as_string()
    query = select(named).where(DecisionRow.experiment == experiment)
    if as_of is not None:
        query = query.where(named == as_of.isoformat())
    return {written for written in session.scalars(query) if written is not None}


def _span(age_s: float) -> float:
    return next((span for younger_s, span in _SPANS if age_s < younger_s), _LAST_SPAN_S)
