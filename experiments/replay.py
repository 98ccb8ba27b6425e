"""Computes a report again, from the table versions that it names, and says whether it comes out the same.

A report holds all that it follows from (:class:`~experiments.report.Basis`): the definition, the versions of the tables, the
times between which records count, and what earlier looks had left behind. The replay reads everything anew, so it also proves
that what was kept from look to look (:mod:`experiments.measurement`) adds up to what is in the tables.

Invariant: a replay writes nothing. "Cannot be replayed" (the table's old files are gone) is a result of its own, never an
agreement.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from collector.catalog import EndpointTables
from experiments.analysis.code_version import code_version
from experiments.analysis.look import look
from experiments.analysis.memory import memory_from_dict
from experiments.analysis.moment import Moment
from experiments.experiment import experiment_from_dict
from experiments.measurement.incremental import Measurer, Versions
from servelens.errors import Missing, ServelensError, Unavailable

# Sums in another order differ in their last digits.
_TOLERANCE = 1e-6
# Not a result: these say how the report was made.
_NOT_COMPARED = frozenset({"basis"})


@dataclass(frozen=True, slots=True)
class Difference:
    """One value of the report that came out differently; ``path`` is as in ``metrics[0].comparisons[0].verdict``."""

    path: str
    reported: Any
    replayed: Any


@dataclass(frozen=True, slots=True)
class Replay:
    """``differs`` names the values; ``gone`` says in ``reason`` what is not there any more."""

    experiment: str
    as_of: str
    outcome: Literal["agrees", "differs", "gone"]
    reported_by: str | None
    replayed_by: str
    differences: tuple[Difference, ...] = ()
    reason: str | None = None


def replay(report: Mapping[str, Any], tables: EndpointTables) -> Replay:
    """Compute ``report`` (as :meth:`~experiments.report.Report.to_dict` gave it) again from ``tables``."""
    basis = report.get("basis")
    if basis is None:
        return _gone(
            report, None, "it was made by an older servelens, which did not keep what it follows from"
        )
    try:
        again = _again(report, basis, tables)
    except (Missing, Unavailable) as error:
        return _gone(report, basis["code_version"], _words(error))
    differences = tuple(compare("", _compared(report), _compared(again)))
    return Replay(
        experiment=report["experiment"],
        as_of=report["as_of"],
        outcome="differs" if differences else "agrees",
        reported_by=basis["code_version"],
        replayed_by=code_version(),
        differences=differences,
    )


def _again(report: Mapping[str, Any], basis: Mapping[str, Any], tables: EndpointTables) -> dict[str, Any]:
    experiment = experiment_from_dict(basis["definition"])
    moment = Moment(
        as_of=datetime.fromisoformat(report["as_of"]),
        state=report["state"],
        started_at=_moment(report["started_at"]),
        since=_moment(basis["since"]),
        until=_moment(basis["until"]),
        payload_version=report["payload_version"],
        scores_version=report["scores_version"],
        feedback_version=report["feedback_version"],
    )
    measurements = Measurer(tables, None).measure(
        experiment,
        versions=Versions(moment.payload_version, moment.scores_version, moment.feedback_version),
        as_of=moment.as_of,
        since=moment.since,
        until=moment.until,
        started_at=moment.started_at,
        pilots=basis["pilots"],
        history=None if basis["history"] is None else Versions(**basis["history"]),
    )
    return look(experiment, measurements, memory_from_dict(basis["memory"]), moment).to_dict()


def _compared(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in report.items() if name not in _NOT_COMPARED}


def compare(path: str, reported: Any, replayed: Any) -> Iterator[Difference]:
    """Where two JSON-able values are not the same, but for the last digits of numbers."""
    if isinstance(reported, Mapping) and isinstance(replayed, Mapping):
        for name in sorted({*reported, *replayed}):
            yield from compare(f"{path}.{name}".lstrip("."), reported.get(name), replayed.get(name))
    elif isinstance(reported, list) and isinstance(replayed, list) and len(reported) == len(replayed):
        for index, pair in enumerate(zip(reported, replayed, strict=True)):
            yield from compare(f"{path}[{index}]", *pair)
    elif not _same(reported, replayed):
        yield Difference(path, reported, replayed)


def _same(reported: Any, replayed: Any) -> bool:
    numbers = all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in (reported, replayed)
    )
    if numbers:
        return math.isclose(reported, replayed, rel_tol=_TOLERANCE, abs_tol=1e-9)
    return bool(reported == replayed)


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _gone(report: Mapping[str, Any], reported_by: str | None, reason: str) -> Replay:
    return Replay(report["experiment"], report["as_of"], "gone", reported_by, code_version(), reason=reason)


def _words(error: ServelensError) -> str:
    return f"the tables no longer reach back to that look: {error}"
