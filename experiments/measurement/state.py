"""What is kept of a measurement between two looks: a manifest, and the units that it is of.

Invariant: the manifest names files that are complete, and replaces the one before in one step, so a crash leaves the
state before. What cannot be read, was written by another release, or is of another definition counts as no state.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from experiments.experiment import Experiment
from experiments.measurement.measured import Versions
from experiments.measurement.outcomes import Target
from experiments.measurement.totals import Totals, totals_from_json
from experiments.measurement.unit_table import Segment

logger = logging.getLogger(__name__)

_FORMAT: Final = 1
_MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class History:
    """The units' covariates, of the definition with this ``digest``, as they were read at ``versions``."""

    digest: str
    versions: Versions
    segment: Segment


@dataclass(frozen=True, slots=True)
class State:
    """The totals at ``versions`` and ``as_of`` of the definition with this ``digest``; ``segments`` hold the units,
    and ``history`` their covariates.
    """

    digest: str
    versions: Versions
    as_of: datetime
    pilots: Mapping[str, float]
    targets: Mapping[str, Target]
    totals: Totals
    segments: tuple[Segment, ...]
    history: History | None = None


def digest_of(experiment: Experiment, moments: Sequence[datetime | None], pilots: Mapping[str, float]) -> str:
    """Of all that changes what is measured between these ``moments``. Weights, shares and phases do not: they are in the
    records.
    """
    meant = [
        experiment.name,
        experiment.unit,
        [variant.name for variant in experiment.variants],
        experiment.metrics,
        experiment.outcome_window_s,
        experiment.cuped_days,
        [
            (price.served_entity, price.input_per_million, price.output_per_million)
            for price in experiment.prices
        ],
        [None if moment is None else moment.isoformat() for moment in moments],
        sorted(pilots.items()),
        # Units are known by their hash, which another release of polars may make otherwise.
        str(pl.Series(["servelens"]).hash()[0]),
    ]
    return hashlib.sha256(json.dumps(meant).encode()).hexdigest()


class StateFolder:
    """The state of one experiment in ``folder``, which is made when there is something to keep."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def read(self) -> State | None:
        """What was written last; ``None`` when there is nothing that can be used."""
        path = self.folder / _MANIFEST
        try:
            return _state(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning(
                "state of a measurement cannot be read and is made anew: path=%s error=%r", path, error
            )
            return None

    def write(self, state: State) -> None:
        """Replace what was written before, and remove files that are not needed any more."""
        new = self.folder / f"{_MANIFEST}.new"
        with new.open("w") as file:
            file.write(json.dumps(_manifest(state)))
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / _MANIFEST)
        descriptor = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._clean(state)

    def _clean(self, state: State) -> None:
        named = {segment.file for segment in state.segments}
        if state.history is not None:
            named.add(state.history.segment.file)
        for path in self.folder.glob("*.arrow"):
            if path.name not in named:
                path.unlink(missing_ok=True)


def _manifest(state: State) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "digest": state.digest,
        "versions": astuple(state.versions),
        "as_of": state.as_of.isoformat(),
        "pilots": dict(state.pilots),
        "targets": dict(state.targets),
        "totals": state.totals.to_json(),
        "segments": [list(segment) for segment in state.segments],
        "history": None if state.history is None else _history_json(state.history),
    }


def _state(manifest: dict[str, Any]) -> State:
    if manifest["format"] != _FORMAT:
        raise ValueError(f"format {manifest['format']}, not {_FORMAT}")
    return State(
        digest=manifest["digest"],
        versions=Versions(*manifest["versions"]),
        as_of=datetime.fromisoformat(manifest["as_of"]),
        pilots=manifest["pilots"],
        targets=manifest["targets"],
        totals=totals_from_json(manifest["totals"]),
        segments=tuple(Segment(*segment) for segment in manifest["segments"]),
        history=None if manifest["history"] is None else _history(**manifest["history"]),
    )


def _history_json(history: History) -> dict[str, Any]:
    return {
        "digest": history.digest,
        "versions": astuple(history.versions),
        "segment": list(history.segment),
    }


def _history(digest: str, versions: list[int | None], segment: list[Any]) -> History:
    return History(digest, Versions(*versions), Segment(*segment))
