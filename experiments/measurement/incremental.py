"""Looks at experiments that read only what is new since the look before.

Invariant: a look gives what one pass over everything at the same versions gives, up to rounding. So whatever an update
cannot be sure of is measured anew (:mod:`experiments.measurement.look`); and a state is never replaced by an earlier one.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from collector.catalog import EndpointTables
from experiments.experiment import Experiment
from experiments.measurement.covariates import history_begins
from experiments.measurement.look import Look
from experiments.measurement.measured import Measurements, Versions
from experiments.measurement.pairs import measure_pairs
from experiments.measurement.sources import Sources
from experiments.measurement.state import State, StateFolder, digest_of
from experiments.measurement.totals import Totals, measurements
from experiments.measurement.values import Reading, reading_for
from servelens.errors import Unavailable

__all__ = ["Measurer", "Versions"]


class Measurer:
    """Measures the experiments of one endpoint. What a look needs of the one before is kept in ``folder``; with ``None``
    each look reads everything, and leaves nothing behind.

    Processes may share the folder: one at a time has an experiment's state.
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
        started_at: datetime | None = None,
        pilots: Mapping[str, float] | None = None,
        history: Versions | None = None,
    ) -> Measurements:
        """Everything that the experiment's analysis rests on, of requests in [``since``, ``until``). What its units did
        before counts up to ``started_at``, by default ``since``.

        Feedback counts when its time is over at ``as_of``. A look that is repeated is given the ``pilots`` and the
        ``history`` that were found then (see :class:`Measurements`). Raises :class:`~servelens.errors.Missing` for
        versions that are gone, and :class:`~servelens.errors.Unavailable` when tables or ``folder`` cannot be read.
        """
        reading = reading_for(experiment)
        sources = Sources(self._tables, versions, reading, since, until)
        if experiment.kind == "shadow":
            return _paired(sources, reading)
        ends = since if started_at is None else started_at
        begins = history_begins(reading, ends)
        look = Look(
            sources,
            reading,
            versions,
            as_of,
            pilots or {},
            digest_of(experiment, (since, until, ends), pilots or {}),
            None if begins is None else Sources(self._tables, history or versions, reading, begins, ends),
            history or versions,
            digest_of(experiment, (begins, ends), {}),
        )
        if self._folder is None:
            return look.measurements(look.everything(None, None))
        folder = self._state_folder(experiment.name)
        try:
            with folder.locked():
                return look.measurements(_next(look, folder.read(), folder))
        except OSError as error:
            raise Unavailable(f"the state in {folder.folder} cannot be kept: {error}") from error

    def discard(self, name: str) -> None:
        """Remove what is kept of the experiment called ``name``: it has ended, so no later look would go on from it."""
        if self._folder is not None:
            shutil.rmtree(self._state_folder(name).folder, ignore_errors=True)

    def _state_folder(self, name: str) -> StateFolder:
        assert self._folder is not None
        return StateFolder(self._folder / hashlib.sha256(name.encode()).hexdigest()[:16])


def _next(look: Look, known: State | None, folder: StateFolder) -> State:
    """The state after this look, which is written unless a later one is there already."""
    found = None
    if known is not None and known.digest == look.digest:
        if not look.reaches(known):
            return look.everything(known, folder.folder, keep=False)
        if look.is_at(known):
            return known
        found = look.updated(known, folder.folder)
    if found is None:
        found = look.everything(known, folder.folder)
    folder.write(found)
    return found


def _paired(sources: Sources, reading: Reading) -> Measurements:
    """A shadow experiment exposes nobody: all that there is are pairs."""
    experiment = reading.experiment
    pairs = measure_pairs(sources.payload(), sources.scores(), experiment, engine="streaming")
    records = {experiment.control.name: max(each.originals for each in pairs)}
    records |= {each.treatment: each.mirrored for each in pairs}
    return replace(measurements(Totals(), reading, {}), records=records, pairs=pairs)
