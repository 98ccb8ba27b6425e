"""Looks at an experiment that read only what is new since the look before.

Invariant: a look gives what one pass over everything at the same versions gives, up to rounding. So whatever an update
cannot be sure of is made anew: a state that is gone, damaged, of another definition or newer than what is asked for; a
table whose history no longer reaches back to it, or from which rows were taken away; a quantile's first pilot; and an
evaluator of prompts that begins to score answers.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import polars as pl

from collector.catalog import EndpointTables
from experiments.experiment import Experiment
from experiments.measurement.exposures import EXCLUDED, exposures
from experiments.measurement.measure import NO_FEEDBACK, NO_SCORES, survey
from experiments.measurement.measured import Measurements
from experiments.measurement.outcomes import Outcomes, Target, feedback_rows, score_rows, with_outcomes
from experiments.measurement.sources import Sources
from experiments.measurement.state import State, StateFolder, Versions, digest_of
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
from experiments.measurement.values import Reading, reading_for
from servelens.errors import Missing, Unavailable

__all__ = ["Measurer", "Versions"]

logger = logging.getLogger(__name__)


class Measurer:
    """Measures the experiments of one endpoint. What a look needs of the one before is kept in ``folder``; with ``None``
    each look reads everything, and leaves nothing behind.
    """

    def __init__(self, tables: EndpointTables, folder: Path | None) -> None:
        self._tables = tables
        self._folder = folder

    def measure(
        self,
        experiment: Experiment,
        *,
        versions: Versions,
        as_of: datetime,
        since: datetime | None = None,
        until: datetime | None = None,
        pilots: Mapping[str, float] | None = None,
    ) -> Measurements:
        """Everything that the experiment's analysis rests on, of requests in [``since``, ``until``).

        Feedback counts when its time is over at ``as_of``. ``pilots`` are where quantile metrics are held (see
        :class:`~experiments.measurement.measured.Measured`), for a look that is repeated. Raises
        :class:`~servelens.errors.Missing` for versions that are gone, and :class:`~servelens.errors.Unavailable` when
        tables or ``folder`` cannot be read.
        """
        reading = reading_for(experiment)
        look = _Look(
            Sources(self._tables, versions, reading, since, until),
            reading,
            versions,
            as_of,
            pilots or {},
            digest_of(experiment, since, until, pilots or {}),
        )
        if self._folder is None:
            found = look.everything(None)
            return measurements(found.totals, reading, found.pilots)
        folder = StateFolder(self._folder / hashlib.sha256(experiment.name.encode()).hexdigest()[:16])
        try:
            with folder.locked():
                known = folder.read()
                found = _next(look, known, folder)
        except OSError as error:
            raise Unavailable(f"the state in {folder.folder} cannot be kept: {error}") from error
        return measurements(found.totals, reading, found.pilots)


def _next(look: _Look, known: State | None, folder: StateFolder) -> State:
    """The state after this look, which is written unless a later one is there already."""
    found = None
    if known is not None and known.digest == look.digest:
        if not look.reaches(known):
            return look.everything(None)
        if known.versions == look.versions and (known.as_of == look.as_of or not look.reading.feedback):
            return known
        found = look.updated(known, folder.folder)
    if found is None:
        found = look.everything(folder.folder)
    folder.write(found)
    return found


class _NotEnough(Exception):
    """What is new does not tell what the totals are."""


@dataclass(frozen=True, slots=True)
class _Look:
    sources: Sources
    reading: Reading
    versions: Versions
    as_of: datetime
    pilots: Mapping[str, float]
    digest: str

    def reaches(self, known: State) -> bool:
        """Whether this look is no earlier than the one that left ``known``."""
        return self.versions.reaches(known.versions) and (
            self.as_of >= known.as_of or not self.reading.feedback
        )

    def everything(self, folder: Path | None) -> State:
        """The state after one pass over all records; its units are kept in ``folder``."""
        sources, reading = self.sources, self.reading
        records = sources.collect(exposures(sources.payload(), reading))
        outcomes = Outcomes(
            sources.collect(
                score_rows(sources.scores() if reading.evaluators else NO_SCORES.lazy(), reading)
            ),
            sources.collect(
                feedback_rows(sources.feedback() if reading.feedback else NO_FEEDBACK.lazy(), reading)
            ),
            as_of=self.as_of,
        ).with_targets(reading)
        found = survey(with_outcomes(records, outcomes, reading), reading, self.pilots, "streaming")
        del records
        segments = () if folder is None or found.units is None else (write_segment(folder, found.units),)
        return self._state(found.totals, {**found.pilots}, outcomes.targets, segments)

    def updated(self, known: State, folder: Path) -> State | None:
        """The state after what is new since ``known`` was counted; ``None`` where that is not enough."""
        try:
            additions = self.sources.additions(known.versions)
            if additions.removed:
                raise _NotEnough("rows were deleted")
            news = Comparison(self.sources, self.reading, additions, known.targets, known.as_of, self.as_of)
            if news.targets_moved:
                raise _NotEnough("an evaluator scores answers now")
            totals, segments = self._counted(news, known, folder)
            placed = ready_pilots(totals, self.reading, pooled_quantiles(totals, self.reading))
            if placed.keys() - known.pilots.keys():
                raise _NotEnough("a quantile can be placed")
        except (Missing, Damaged, _NotEnough) as error:
            logger.info("measured anew: experiment=%s reason=%s", self.reading.experiment.name, error)
            return None
        return self._state(totals, known.pilots, news.targets, segments)

    def _counted(self, news: Comparison, known: State, folder: Path) -> tuple[Totals, tuple[Segment, ...]]:
        reading, totals, touched = self.reading, known.totals, news.touched()
        totals.add(exclusions(touched.new))
        touched = replace(touched, new=touched.new.filter(pl.col(EXCLUDED).is_null()))
        added, taken = pl.concat([touched.new, touched.after]), touched.before
        if reading.clustered:
            table = UnitTable(folder, known.segments)
            plus, minus = (unit_rows(records, reading, known.pilots) for records in (added, taken))
            before = table.rows_of(pl.concat([plus["unit"], minus["unit"]]).unique().sort())
            after = merged(before, plus, minus, reading)
            known_units, units = settled(before), settled(after)
            totals.add(totals_of_units(units, reading))
            totals.add(totals_of_units(known_units, reading), -1)
            self._tear(
                totals,
                news,
                touched,
                units.torn,
                units.torn.filter(~units.torn.is_in(known_units.torn.implode())),
            )
            added, taken = (
                frame.filter(~pl.col("unit").is_in(units.torn.implode())) for frame in (added, taken)
            )
            segments = table.with_rows(after).segments if len(after) else known.segments
        else:
            totals.add(totals_of_requests(added, reading, known.pilots))
            totals.add(totals_of_requests(taken, reading, known.pilots), -1)
            segments = ()
        totals.add(tally(added, reading))
        totals.add(tally(taken, reading), -1)
        return totals, segments

    def _tear(
        self, totals: Totals, news: Comparison, touched: Touched, torn: pl.Series, newly: pl.Series
    ) -> None:
        """Records of ``torn`` units count as such, also those that counted before it was known of the unit."""
        totals.add(in_two_variants(int(touched.new["unit"].is_in(torn.implode()).sum())))
        if len(newly):
            counted = news.before(newly)
            totals.add(tally(counted, self.reading), -1)
            totals.add(in_two_variants(len(counted)))

    def _state(
        self,
        totals: Totals,
        pilots: Mapping[str, float],
        targets: Mapping[str, Target],
        segments: tuple[Segment, ...],
    ) -> State:
        return State(self.digest, self.versions, self.as_of, pilots, targets, totals, segments)
