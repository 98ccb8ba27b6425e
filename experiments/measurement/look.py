"""One look at an experiment: over everything, or over what is new since another.

Measured anew is what an update cannot be sure of: where the state's files are damaged; where a table's history no longer
reaches back to the state, or rows were taken from it; a quantile that can be placed for the first time; and an evaluator of
prompts that has begun to score answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl

from experiments.measurement.covariates import earlier_records, unit_means
from experiments.measurement.exposures import EXCLUDED, exposures
from experiments.measurement.measure import NO_FEEDBACK, NO_SCORES, survey
from experiments.measurement.measured import Measurements, Versions
from experiments.measurement.outcomes import Outcomes, Target, feedback_rows, score_rows, with_outcomes
from experiments.measurement.sources import Sources
from experiments.measurement.state import History, State
from experiments.measurement.tallies import exclusions, tally
from experiments.measurement.totals import (
    Totals,
    in_two_variants,
    measurements,
    pooled_quantiles,
    ready_pilots,
)
from experiments.measurement.touched import Comparison, Touched
from experiments.measurement.unit_table import Damaged, Segment, UnitTable, write_segment
from experiments.measurement.units import merged, settled, totals_of_requests, totals_of_units, unit_rows
from experiments.measurement.values import Reading
from servelens.errors import Missing

logger = logging.getLogger(__name__)


class _NotEnough(Exception):
    """What is new does not tell what the totals are."""


@dataclass(frozen=True, slots=True)
class Look:
    """What is looked at: the experiment's ``sources`` at ``versions`` and ``as_of``, and its units' ``earlier`` records
    (``None``: none are asked for) at ``earlier_versions``. ``digest`` and ``earlier_digest`` are of what the two mean.
    """

    sources: Sources
    reading: Reading
    versions: Versions
    as_of: datetime
    pilots: Mapping[str, float]
    digest: str
    earlier: Sources | None
    earlier_versions: Versions
    earlier_digest: str

    def reaches(self, known: State) -> bool:
        """Whether this look is no earlier than the one that left ``known``."""
        in_time = self.as_of >= known.as_of or not self.reading.feedback
        return in_time and self.versions.reaches(known.versions)

    def is_at(self, known: State) -> bool:
        """Whether the look that left ``known`` saw the same."""
        in_time = self.as_of == known.as_of or not self.reading.feedback
        return in_time and self.versions == known.versions

    def measurements(self, state: State) -> Measurements:
        """The totals of ``state`` in the shape that statistics take."""
        found = measurements(state.totals, self.reading, state.pilots)
        return replace(found, history=None if self.earlier is None else self._versions_of(state.history))

    def everything(self, known: State | None, folder: Path | None, *, keep: bool = True) -> State:
        """The state after one pass over all records, with the units' history that is ``known``. With ``keep``, units
        are written into ``folder``.
        """
        means, history = self._history(known, folder, keep)
        records, targets = self._read(self.sources, exposures, self.as_of)
        found = survey(records, self.reading, self.pilots, means, "streaming")
        segments: tuple[Segment, ...] = ()
        if keep and folder is not None and found.units is not None:
            segments = (write_segment(folder, found.units),)
        return State(
            self.digest, self.versions, self.as_of, found.pilots, targets, found.totals, segments, history
        )

    def updated(self, known: State, folder: Path) -> State | None:
        """The state after what is new since ``known`` was counted; ``None`` where that is not enough."""
        try:
            additions = self.sources.additions(known.versions)
            if additions.removed:
                raise _NotEnough("rows were deleted")
            news = Comparison(self.sources, self.reading, additions, known.targets, known.as_of, self.as_of)
            if news.targets_moved:
                raise _NotEnough("an evaluator scores answers now")
            state = replace(known, versions=self.versions, as_of=self.as_of, targets=news.targets)
            state = (
                self._with_units(state, news, folder)
                if self.reading.clustered
                else self._with_requests(state, news)
            )
            placed = ready_pilots(state.totals, self.reading, pooled_quantiles(state.totals, self.reading))
            if placed.keys() - known.pilots.keys():
                raise _NotEnough("a quantile can be placed")
        except (Missing, Damaged, _NotEnough) as error:
            logger.info("measured anew: experiment=%s reason=%s", self.reading.experiment.name, error)
            return None
        return state

    def _with_requests(self, state: State, news: Comparison) -> State:
        totals, touched = state.totals, self._touched(news, state.totals)
        for records, sign in ((touched.new, 1), (touched.after, 1), (touched.before, -1)):
            totals.add(totals_of_requests(records, self.reading, state.pilots), sign)
            totals.add(tally(records, self.reading), sign)
        return state

    def _with_units(self, state: State, news: Comparison, folder: Path) -> State:
        reading, totals, touched = self.reading, state.totals, self._touched(news, state.totals)
        table = UnitTable(folder, state.segments)
        added, taken = pl.concat([touched.new, touched.after]), touched.before
        plus, minus = (unit_rows(records, reading, state.pilots) for records in (added, taken))
        touched_units = pl.concat([plus["unit"], minus["unit"]]).unique().sort()
        if touched_units.is_empty():
            return state
        before = table.rows_of(touched_units)
        after = merged(before, plus, minus, reading)
        was, now = settled(before), settled(after)
        means = (
            None
            if state.history is None
            else UnitTable(folder, [state.history.segment]).rows_of(touched_units)
        )
        totals.add(totals_of_units(now, reading, means))
        totals.add(totals_of_units(was, reading, means), -1)
        newly = now.torn.filter(~now.torn.is_in(was.torn.implode()))
        if len(newly):
            counted = news.before(newly)
            totals.add(tally(counted, reading), -1)
            totals.add(in_two_variants(len(counted)))
        whole = ~pl.col("unit").is_in(now.torn.implode())
        totals.add(in_two_variants(len(touched.new) - len(touched.new.filter(whole))))
        totals.add(tally(added.filter(whole), reading))
        totals.add(tally(taken.filter(whole), reading), -1)
        return self._settled(replace(state, segments=table.with_rows(after).segments), folder)

    def _settled(self, state: State, folder: Path) -> State:
        """When all units have been written anew, sums are made of them, to be rid of what rounding has left."""
        if len(state.segments) > 1:
            return state
        units = settled(UnitTable(folder, state.segments).everything())
        means = None if state.history is None else UnitTable(folder, [state.history.segment]).everything()
        sums = totals_of_units(units, self.reading, means, "streaming")
        totals = replace(
            state.totals,
            exposures=sums.exposures,
            moments=sums.moments,
            cross=sums.cross,
            covariates=sums.covariates,
        )
        return replace(state, totals=totals)

    def _touched(self, news: Comparison, totals: Totals) -> Touched:
        touched = news.touched()
        totals.add(exclusions(touched.new))
        return replace(touched, new=touched.new.filter(pl.col(EXCLUDED).is_null()))

    def _history(
        self, known: State | None, folder: Path | None, keep: bool
    ) -> tuple[pl.DataFrame | None, History | None]:
        """The units' covariates, and where they are kept."""
        if self.earlier is None:
            return None, None
        kept = None if known is None else known.history
        if kept is not None and kept.digest == self.earlier_digest and folder is not None:
            try:
                return UnitTable(folder, [kept.segment]).everything(), kept
            except Damaged as error:
                logger.warning("history of units is read anew: %s", error)
        records, _ = self._read(self.earlier, earlier_records, None)
        means = unit_means(records, self.reading, "streaming")
        if folder is None or not keep:
            return means, None
        return means, History(self.earlier_digest, self.earlier_versions, write_segment(folder, means))

    def _read(
        self,
        sources: Sources,
        records_of: Callable[[pl.LazyFrame, Reading], pl.LazyFrame],
        as_of: datetime | None,
    ) -> tuple[pl.DataFrame, Mapping[str, Target]]:
        reading = self.reading
        scores = sources.scores() if reading.evaluators else NO_SCORES.lazy()
        feedback = sources.feedback() if reading.feedback else NO_FEEDBACK.lazy()
        records = sources.collect(records_of(sources.payload(), reading))
        outcomes = Outcomes(
            sources.collect(score_rows(scores, reading)),
            sources.collect(feedback_rows(feedback, reading)),
            as_of=as_of,
        ).with_targets(reading)
        # Ids and times have served their purpose, and of ten million records they are large.
        found = with_outcomes(records, outcomes, reading).drop("id", "time", strict=False)
        return found, outcomes.targets

    def _versions_of(self, history: History | None) -> Versions:
        return self.earlier_versions if history is None else history.versions
