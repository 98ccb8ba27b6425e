"""What each rule found, day by day (UTC): new cases, and records that made none, by why.

Invariant: counted in the transaction that stores what is counted, so a crash neither loses nor doubles a count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Final

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from relabel.case import ReasonKind
from relabel.models import RuleDayRow
from relabel.selection.rule import MANUAL, CaseRule
from servelens.clock import Clock
from servelens.database import Database

DAYS: Final = 7


@dataclass(frozen=True, slots=True)
class Counts:
    """``cases``: new ones that count against the budget. ``over_budget``, ``over_cluster``: records that made none for that.
    ``repeated``: records that joined a case there was. ``without_text``: records that hold nothing to look at, that retention
    has deleted or that never came.
    """

    cases: int = 0
    over_budget: int = 0
    repeated: int = 0
    over_cluster: int = 0
    without_text: int = 0


@dataclass(frozen=True, slots=True)
class RuleCounts:
    """A rule of an endpoint. ``kind`` and ``daily_budget`` are ``None`` for one that is not in the settings (any more)."""

    endpoint: str
    rule: str
    kind: str | None
    priority: int | None
    daily_budget: int | None
    today: Counts
    last_7_days: Counts


@dataclass(slots=True)
class Tally:
    """Counts by the name of the rule, to be added to those of a day."""

    cases: Counter[str] = field(default_factory=Counter)
    over_budget: Counter[str] = field(default_factory=Counter)
    repeated: Counter[str] = field(default_factory=Counter)
    over_cluster: Counter[str] = field(default_factory=Counter)
    without_text: Counter[str] = field(default_factory=Counter)

    def add_to(self, session: Session, endpoint: str, day: date) -> None:
        """Add them in ``session``."""
        counters = {name: getattr(self, name) for name in _NAMES}
        for rule in sorted(set().union(*counters.values())):
            values = {name: counter[rule] for name, counter in counters.items()}
            key = (RuleDayRow.endpoint == endpoint, RuleDayRow.rule == rule, RuleDayRow.day == day)
            there = session.scalar(select(RuleDayRow.day).where(*key).with_for_update())
            if there is None:
                session.execute(insert(RuleDayRow).values(endpoint=endpoint, rule=rule, day=day, **values))
                continue
            more = {name: getattr(RuleDayRow, name) + number for name, number in values.items()}
            session.execute(
                update(RuleDayRow).where(*key).values(**more),
                execution_options={"synchronize_session": False},
            )


_NAMES: Final = ("cases", "over_budget", "repeated", "over_cluster", "without_text")


def cases_of_day(session: Session, endpoint: str, day: date) -> dict[str, int]:
    """New cases of each rule on ``day``."""
    rows = select(RuleDayRow.rule, RuleDayRow.cases).where(
        RuleDayRow.endpoint == endpoint, RuleDayRow.day == day
    )
    return {row.rule: row.cases for row in session.execute(rows)}


class RuleDays:
    """Reads the counts. ``rules`` are those of the settings, by endpoint; they are listed also without a count."""

    def __init__(self, database: Database, clock: Clock, rules: Mapping[str, Iterable[CaseRule]]) -> None:
        self._database = database
        self._clock = clock
        self._rules = {endpoint: tuple(of_endpoint) for endpoint, of_endpoint in rules.items()}

    def read(self, endpoint: str | None = None) -> list[RuleCounts]:
        """Counts of today and of the last 7 days with today (UTC), by endpoint; the rules of the settings first, in their
        order. Raises :class:`~servelens.errors.Unavailable`.
        """
        today = self._clock.now().date()
        wanted = select(RuleDayRow).where(
            RuleDayRow.day > today - timedelta(days=DAYS), RuleDayRow.day <= today
        )
        if endpoint is not None:
            wanted = wanted.where(RuleDayRow.endpoint == endpoint)
        days: dict[tuple[str, str], list[RuleDayRow]] = {}
        with self._database.session(read_only=True) as session:
            for row in session.scalars(wanted):
                days.setdefault((row.endpoint, row.rule), []).append(row)
        names: dict[tuple[str, str], CaseRule | None] = {}
        for of in sorted({*self._rules, *(of for of, _ in days)}):
            if endpoint is not None and of != endpoint:
                continue
            for rule in self._rules.get(of, ()):
                names.setdefault((of, rule.name), rule)
            for key in sorted(key for key in days if key[0] == of):
                names.setdefault(key, None)
        return [
            RuleCounts(
                of,
                name,
                str(ReasonKind.MANUAL) if name == MANUAL else None if rule is None else str(rule.kind),
                None if rule is None else rule.priority,
                None if rule is None else rule.daily_budget,
                _summed(row for row in days.get((of, name), ()) if row.day == today),
                _summed(days.get((of, name), ())),
            )
            for (of, name), rule in names.items()
        ]


def _summed(rows: Iterable[RuleDayRow]) -> Counts:
    total: Counter[str] = Counter()
    for row in rows:
        total.update({name: getattr(row, name) for name in _NAMES})
    return Counts(**{name: total[name] for name in _NAMES})
