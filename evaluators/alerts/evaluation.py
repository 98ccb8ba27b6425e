"""The job of one rule: measure, judge, and take what was found into the states of its slices.

Invariants: a slice that was seen before is judged at every look, so a variant without records is *no data* and never
forgotten while it matters; and a table that cannot be read is no data as well, with its error as the reason, so an alert
that must not be blind can say so (``no_data: alert``).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from collector.catalog import EndpointTables
from evaluators.alerts.findings import Finding, changed, nothing, past_threshold, unusual
from evaluators.alerts.readers import Reader, reader_for
from evaluators.alerts.rule import WHOLE, AlertRule, Anomaly, Change, Threshold
from evaluators.alerts.samples import Count, Sample, Total
from evaluators.alerts.state import State
from evaluators.alerts.store import AlertStore, stored_slice
from evaluators.drift.windows import Window
from servelens.clock import Clock
from servelens.errors import ServelensError, Unavailable

logger = logging.getLogger(__name__)

SLICE_GONE_AFTER: Final = timedelta(days=1)
"""A slice of ``slice: variant`` without data for so long, and for ten windows, is no longer looked at."""

_WEEK: Final = timedelta(weeks=1)
_EPOCH: Final = datetime(1970, 1, 5, tzinfo=UTC)
_PAST_WINDOWS: Final = 512

Summary = tuple[float, int]
"""Value and number of values of a past window."""


class RuleEvaluator:
    """Looks at one rule. One instance belongs to one job: what it has read of the past it keeps in memory."""

    def __init__(self, rule: AlertRule, tables: EndpointTables, store: AlertStore, clock: Clock) -> None:
        self._rule = rule
        self._reader: Reader = reader_for(rule, tables)
        self._store = store
        self._clock = clock
        self._past: OrderedDict[datetime, Mapping[str, Summary]] = OrderedDict()
        self._baseline: Mapping[str, Sample] | None = None

    def run(self) -> str:
        """One look at every slice; a word for each slice that fired or ended, for the log.

        Raises :class:`~servelens.errors.Unavailable` after the states are written when a table could not be read.
        """
        rule = self._rule
        window = self.window(self._clock.now())
        failure: ServelensError | None = None
        try:
            findings = self.look(window)
        except Unavailable as error:
            failure, findings = error, {}
        known = self._store.states(rule.name)
        self._let_go(known, findings, failure)
        for slice_ in known:
            findings.setdefault(slice_, self._missing(failure))
        if not rule.sliced:
            findings.setdefault(rule.variant or WHOLE, self._missing(failure))
        happened = []
        for slice_, finding in sorted(findings.items()):
            examples = partial(self._examples, window, slice_, finding)
            event = self._store.record(rule, slice_, finding, examples)
            if event is not None:
                happened.append(f"{event}{f' {slice_}' if slice_ else ''}")
                logger.info(
                    "alert: event=%s rule=%s slice=%s reason=%s", event, rule.name, slice_, finding.reason
                )
        if failure is not None:
            raise failure
        return ", ".join(happened) or "nothing new"

    def window(self, now: datetime) -> Window:
        """The window that a look at ``now`` judges: what ended ``delay`` ago; for anomalies the last whole one, aligned
        to the clock, so that it is the same window of every week.
        """
        end = now - self._rule.delay
        if isinstance(self._rule.condition, Anomaly):
            end = _EPOCH + (end - _EPOCH) // self._rule.window * self._rule.window
        return Window(end - self._rule.window, end)

    def look(self, window: Window) -> dict[str, Finding]:
        """What there is to say of each slice that has values. Raises :class:`~servelens.errors.Unavailable`."""
        rule, condition = self._rule, self._rule.condition
        samples = {stored_slice(name): sample for name, sample in self._reader.read(window).items()}
        if isinstance(condition, Threshold):
            return {name: past_threshold(rule, condition, sample) for name, sample in samples.items()}
        if isinstance(condition, Change):
            reference, factor = self._reference(condition, window)
            return {
                name: changed(rule, condition, sample, reference[name].scaled(factor))
                if name in reference
                else Finding("insufficient", "insufficient data: the reference has no values", sample.value)
                for name, sample in samples.items()
            }
        weeks = [self._past_week(condition, window, number) for number in range(1, condition.weeks + 1)]
        return {
            name: unusual(
                rule, condition, sample, [[past[name] for past in week if name in past] for week in weeks]
            )
            for name, sample in samples.items()
        }

    def _reference(self, condition: Change, window: Window) -> tuple[Mapping[str, Sample], float]:
        """The reference's samples, and how much longer the window is than the reference."""
        if condition.against == "baseline":
            assert condition.baseline_start is not None, "checked when the rule was made"
            assert condition.baseline_end is not None, "checked when the rule was made"
            fixed = Window(condition.baseline_start, condition.baseline_end)
            if self._baseline is None or fixed.end + self._rule.delay > self._clock.now():
                self._baseline = self._named(fixed)
            return self._baseline, window.length / fixed.length
        count = 1 if condition.against == "previous" else condition.windows
        before = Window(window.start - count * window.length, window.start)
        return self._named(before), 1.0 / count

    def _named(self, window: Window) -> Mapping[str, Sample]:
        return {stored_slice(name): sample for name, sample in self._reader.read(window).items()}

    def _past_week(self, condition: Anomaly, window: Window, number: int) -> list[Mapping[str, float]]:
        """What the windows around this time were, ``number`` weeks ago; those with enough values."""
        start = window.start - number * _WEEK
        found: list[Mapping[str, float]] = []
        for step in range(-condition.neighbours, condition.neighbours + 1):
            past = self._rolled_up(start + step * window.length, window.length)
            found.append(
                {name: value for name, (value, n) in past.items() if n >= self._rule.min_samples or n < 0}
            )
        return found

    def _rolled_up(self, start: datetime, length: timedelta) -> Mapping[str, Summary]:
        """The value of a past window, read once: an hour later only the newest neighbour of each week is read anew."""
        if start in self._past:
            self._past.move_to_end(start)
            return self._past[start]
        read = self._named(Window(start, start + length))
        # A total is a value whatever it is of, so the number of values does not rule it out.
        rolled = {
            name: (sample.value, -1 if isinstance(sample, Count | Total) and sample.n else sample.n)
            for name, sample in read.items()
        }
        self._past[start] = rolled
        while len(self._past) > _PAST_WINDOWS:
            self._past.popitem(last=False)
        return rolled

    def _missing(self, failure: ServelensError | None) -> Finding:
        return nothing(self._reader.nothing() if failure is None else f"it could not be measured: {failure}")

    def _examples(self, window: Window, slice_: str, finding: Finding) -> list[str]:
        if finding.value is None:
            return []
        highest = finding.value >= (finding.reference or 0.0)  # the reference of a threshold is its limit
        try:
            return self._reader.examples(window, slice_, highest=highest)
        except Unavailable as error:  # the alert itself matters more
            logger.warning("no examples for an alert: rule=%s error=%s", self._rule.name, error)
            return []

    def _let_go(
        self, known: dict[str, State], findings: Mapping[str, Finding], failure: ServelensError | None
    ) -> None:
        """Drop slices that are gone: variants of ended experiments, and those of the rule before it was changed."""
        rule, now = self._rule, self._clock.now()
        patience = max(SLICE_GONE_AFTER, 10 * rule.window)

        def gone(name: str, state: State) -> str | None:
            if rule.sliced != (name != WHOLE) and rule.variant is None:
                return "the rule looks at other slices now"
            if rule.variant is not None and name != rule.variant:
                return "the rule looks at another variant now"
            quiet = now - (state.data_at or state.since)
            if rule.sliced and failure is None and name not in findings and quiet > patience:
                return f"the variant has had no data since {state.data_at or state.since:%Y-%m-%d %H:%M} UTC"
            return None

        for name, state in list(known.items()):
            if (reason := gone(name, state)) is not None:
                self._store.forget_slices(rule, [name], reason)
                del known[name]
