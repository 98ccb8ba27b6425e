"""The reasons of a rollout's decisions, in words that a product manager understands, with the numbers.

Invariant: a number that is not known is not made up, and nothing here raises, whatever the numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from experiments.ramp import Ramp
from experiments.report import GuardrailResult

# Larger evidence is given as a power of ten, and a larger change as a multiple.
_LARGE_LOG_E = math.log(1e6)
_MANY_TIMES = math.log(10.0)

_UNITS = ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute"), (1.0, "second"))


class Names(Protocol):
    """What variants and directions are called."""

    @property
    def control(self) -> str: ...
    @property
    def treatment(self) -> str: ...
    @property
    def falling(self) -> frozenset[str]: ...


def step(ramp: Ramp, at: int) -> str:
    """``step 2 of 4 (5 %)``; steps count from 0, people from 1."""
    return f"step {at + 1} of {len(ramp.steps)} ({ramp.steps[at].weight:g} %)"


def records(count: int, of: str) -> str:
    """``1 record of v8``, ``300 records of v8``."""
    return f"{count:,} {'record' if count == 1 else 'records'} of {of}"


def moment(when: datetime) -> str:
    """``2026-03-01 12:00 UTC``."""
    return when.isoformat(sep=" ", timespec="minutes").replace("+00:00", " UTC")


def duration(seconds: float) -> str:
    """``45 seconds``, ``10 minutes``, ``1.5 hours``, ``7 days``.

    >>> duration(600), duration(5400), duration(1)
    ('10 minutes', '1.5 hours', '1 second')
    """
    size, unit = next((each for each in _UNITS if seconds >= each[0]), _UNITS[-1])
    count = _number(seconds / size)
    return f"{count} {unit}{'' if count == '1' else 's'}"


def breach(breached: Sequence[GuardrailResult], names: Names) -> str:
    """Which guardrails showed harm, the strongest evidence first."""
    strongest_first = sorted(breached, key=lambda each: -_or(each.running_log_e, -math.inf))
    return "; ".join(_breach(each, names) for each in strongest_first)


def cleared(results: Sequence[GuardrailResult], names: Names) -> str:
    """That every bound is under its margin."""
    return "; ".join(_bound(each, names) for each in results)


def still_open(results: Sequence[GuardrailResult], names: Names) -> str:
    """Which bounds are not under their margins yet."""
    return "; ".join(_bound(each, names) for each in results)


def unknown(results: Sequence[GuardrailResult]) -> str:
    """Which guardrails cannot be judged, and why."""
    return "; ".join(f"{each.label} cannot be judged: {each.reason or 'no reason given'}" for each in results)


def odds(log_e: float) -> str:
    """An e-value as evidence against no harm: ``1 : 412``.

    >>> odds(math.log(412)), odds(1000.0)
    ('1 : 412', '1 : 10^434')
    """
    if log_e < _LARGE_LOG_E:
        return f"1 : {_number(math.exp(log_e))}"
    return f"1 : 10^{log_e / math.log(10.0):.0f}" if math.isfinite(log_e) else "beyond any number"


def _breach(result: GuardrailResult, names: Names) -> str:
    what = f"{result.label} of {names.treatment}"
    allowed = (
        f"a harm of at most {_amount(result.tolerance, result, names)}" if result.tolerance > 0 else "no harm"
    )
    log_e = result.running_log_e
    evidence = "" if log_e is None or math.isnan(log_e) else f"; evidence {odds(log_e)} against {allowed}"
    harm = result.harm
    if harm is None or not math.isfinite(harm):
        return f"{what} was worse than of {names.control} at an earlier look{evidence}"
    if harm <= 0:
        now = _than(harm, result, names)
        return f"{what} was worse at an earlier look, and is {now} than of {names.control} now{evidence}"
    return f"{what} is {_than(harm, result, names)} than of {names.control}{evidence}"


def _bound(result: GuardrailResult, names: Names) -> str:
    what, margin = f"{result.label} of {names.treatment}", _amount(result.margin, result, names)
    upper = result.upper
    if upper is None or math.isnan(upper):
        return f"what bounds {what} is not known"
    if not math.isfinite(upper):
        return f"nothing bounds {what} yet, and the margin is {margin}"
    against = f"{_than(upper, result, names)} than of {names.control}"
    if upper < result.margin:
        worst = "at most" if upper >= 0 else "at least"
        return f"{what} is {worst} {against}, within the margin of {margin}"
    return f"{what} may still be {against}, and the margin is {margin}"


def _than(harm: float, result: GuardrailResult, names: Names) -> str:
    """``1.9 points higher``."""
    higher = (harm > 0) != (result.metric in names.falling)
    return f"{_amount(harm, result, names)} {'higher' if higher else 'lower'}"


def _amount(harm: float, result: GuardrailResult, names: Names) -> str:
    """The size of a harm, or of an improvement when it is negative: ``1.9 points``, ``30 %``, ``4 times``."""
    size = abs(harm)
    if not math.isfinite(size):
        return "any amount"
    if result.scale == "log":
        higher = (harm > 0) != (result.metric in names.falling)
        if higher and size > _MANY_TIMES:
            return f"{_number(math.exp(size))} times" if size < _LARGE_LOG_E else "over a million times"
        return f"{_number(100.0 * (math.expm1(size) if higher else -math.expm1(-size)))} %"
    if result.unit == "rate":
        points = _number(100.0 * size)
        return f"{points} {'point' if points == '1' else 'points'}"
    return f"{_number(size)} {result.unit}" if result.unit in ("ms", "tokens") else _number(size)


def _number(value: float) -> str:
    if value >= 1e15:
        return f"{value:.0e}"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _or(value: float | None, otherwise: float) -> float:
    return otherwise if value is None or math.isnan(value) else value
