"""What profiles and drift cost a row, beside Evidently: ``python -m benchmarks.drift``.

Two windows of together 10 million rows × 12 columns: nine of numbers (normal, log-normal, whole, with nulls, with many
zeros …) and three of categories. Two columns of numbers have drifted by 0.2 standard deviations, and one of categories.
Ours sketches both windows, stores the sketches as bytes, reads them, and calculates the profile of both and the drift.
Evidently's ``DataDriftPreset`` gets the first rows of each window, 100,000 unless told otherwise; what it takes to hand
it pandas frames is not counted. It is told the Kolmogorov–Smirnov test at 0.05 for numbers and a Jensen–Shannon distance
of 0.1, its own default, for categories. Its chi-squared test cannot be compared: it takes the reference's shares for
known instead of counted, and finds drift in nearly every unchanged column of 40 categories.

``ratio_per_row`` is Evidently's time per row over ours, ``ratio_per_row_cpu`` its processor time over ours (of all threads),
which says more where other work goes on beside; ``ratio_per_row_same_rows`` is the same where ours gets no more
rows than Evidently. ``same_verdicts``: on the rows that Evidently got, the same columns are found by these limits.
``drifted`` are the columns that ours finds in all rows, corrected for their number.
``max_statistic_error`` is the largest difference between our Kolmogorov–Smirnov statistic of all rows and scipy's, and
``stated_error`` what the sketches say it is at most; ``within_stated_error`` holds for each column by itself.
``peak_rss_mb`` is the process's largest memory up to the end of our part, with two columns of a window in memory at a time.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl
from scipy import stats

from benchmarks.measuring import print_machine
from evaluators.drift.profile import column_profile
from evaluators.drift.rows import column_drift
from evaluators.drift.sketches.kinds import STANDARD_KINDS
from evaluators.drift.slices import UNSLICED, WHOLE
from evaluators.drift.sources import Kind, Observation, ObservedColumn
from evaluators.drift.window_sketches import WindowSketches

ROWS: Final = 10_000_000
EVIDENTLY_ROWS: Final = 100_000
ALPHA: Final = 0.05
DISTANCE: Final = 0.1
SHIFT: Final = 0.2
COLUMNS_AT_ONCE: Final = 2
Side = Literal["reference", "current"]
SIDES: Final[tuple[Side, Side]] = ("reference", "current")
NUMBERS: Final = (
    "duration_ms",
    "first_token_ms",
    "input_tokens",
    "output_tokens",
    "prompt_length",
    "answer_length",
    "perplexity",
    "toxicity",
    "feature",
)
CATEGORIES: Final = ("status", "finish_reason", "model")


class Timer:
    """Adds up seconds and processor seconds of the blocks that it is entered for."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> Timer:
        self._started = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter() - self._started[0]
        self.cpu += time.process_time() - self._started[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--rows", type=int, default=ROWS, help="of both windows together")
    parser.add_argument("--evidently-rows", type=int, default=EVIDENTLY_ROWS, help="of each window")
    parser.add_argument("--seed", type=int, default=6)
    arguments = parser.parse_args()
    rows, sample = arguments.rows // 2, min(arguments.evidently_rows, arguments.rows // 2)
    print_machine()
    whole, drift = _ours(rows, arguments.seed)
    peak = _peak_rss_mb()
    ours = whole.seconds / (2 * rows)
    print(
        f"ours: {2 * rows} rows in {whole.seconds:.2f} s, {whole.cpu:.2f} s of CPU, {ours * 1e6:.3f} µs a row, peak {peak:.0f} MB"
    )
    errors = _statistic_errors(drift, rows, arguments.seed)
    for name, (error, stated) in errors.items():
        print(f"  {name:16} D off by {error:.2e}, stated {stated:.2e}")
    frames = {
        side: pl.DataFrame([_column(name, side, rows, arguments.seed, sample) for name in _names()])
        for side in SIDES
    }
    part, small = _compared(frames)
    other, evidently = _evidently(frames)
    theirs = other.seconds / (2 * sample)
    mine = {name: _measure(name, one) for name, one in small.items()}
    print(
        f"Evidently: {2 * sample} rows in {other.seconds:.2f} s, {other.cpu:.2f} s of CPU, {theirs * 1e6:.1f} µs a row"
    )
    for name in _names():
        print(f"  {name:16} ours {mine[name]:.3g}, Evidently {evidently[name]:.3g}")
    result = {
        "rows": 2 * rows,
        "columns": len(_names()),
        "ours_s": round(whole.seconds, 3),
        "ours_us_per_row": round(ours * 1e6, 4),
        "evidently_rows": 2 * sample,
        "evidently_s": round(other.seconds, 3),
        "evidently_us_per_row": round(theirs * 1e6, 2),
        "ratio_per_row": round(theirs / ours, 1),
        "ratio_per_row_cpu": round(other.cpu / sample / (whole.cpu / rows), 1),
        "ratio_per_row_same_rows": round(other.seconds / part.seconds, 1),
        "same_verdicts": all(_found(name, mine[name]) == _found(name, evidently[name]) for name in _names()),
        "drifted": sorted(name for name, one in drift.items() if _pvalue(one) <= ALPHA / len(_names())),
        "max_statistic_error": max(error for error, _ in errors.values()),
        "stated_error": max(stated for _, stated in errors.values()),
        "within_stated_error": all(error <= stated + 1e-12 for error, stated in errors.values()),
        "peak_rss_mb": round(peak),
    }
    print(json.dumps(result))


def _ours(rows: int, seed: int) -> tuple[Timer, dict[str, dict[str, Any]]]:
    """The time of the sketches, profiles and drift of all columns, and the drift; values are made out of the clock."""
    taken = Timer()
    drift: dict[str, dict[str, Any]] = {}
    for first in range(0, len(_names()), COLUMNS_AT_ONCE):
        names = _names()[first : first + COLUMNS_AT_ONCE]
        stored: dict[tuple[str, Side], bytes] = {}
        for side in SIDES:
            frame = pl.DataFrame([_column(name, side, rows, seed) for name in names])
            with taken:
                stored |= {(name, side): data for name, data in _sketched(frame).items()}
            del frame
        with taken:
            drift |= {name: _drift(name, stored) for name in names}
    return taken, drift


def _sketched(frame: pl.DataFrame) -> dict[str, bytes]:
    columns = tuple(ObservedColumn(name, _kind_of(name), "double") for name in frame.columns)
    sketches = WindowSketches.of(Observation(frame, columns), UNSLICED, STANDARD_KINDS)
    return {name: one.sketch.to_bytes() for name, one in sketches.of_slice(WHOLE).columns.items()}


def _compared(frames: Mapping[Side, pl.DataFrame]) -> tuple[Timer, dict[str, dict[str, Any]]]:
    with Timer() as taken:
        stored = {(name, side): data for side in SIDES for name, data in _sketched(frames[side]).items()}
        drift = {name: _drift(name, stored) for name in _names()}
    return taken, drift


def _drift(name: str, stored: Mapping[tuple[str, Side], bytes]) -> dict[str, Any]:
    kind = STANDARD_KINDS[_kind_of(name)]
    current, reference = (kind.sketch.from_bytes(stored[name, side]) for side in ("current", "reference"))
    for sketch in (current, reference):
        column_profile(sketch, kind)
    drift = column_drift(current, reference, kind)
    if name in NUMBERS:
        drift["_stated"] = current.sample.error + reference.sample.error
    return drift


def _statistic_errors(
    drift: Mapping[str, Mapping[str, Any]], rows: int, seed: int
) -> dict[str, tuple[float, float]]:
    """By column: how far our statistic is from scipy's, and how far the sketches say it can be."""
    errors = {}
    for name in NUMBERS:
        current, reference = (
            _column(name, side, rows, seed).drop_nulls().to_numpy() for side in ("current", "reference")
        )
        exact = float(stats.ks_2samp(current, reference, method="asymp").statistic)
        errors[name] = (abs(drift[name]["ks_test"]["statistic"] - exact), drift[name]["_stated"])
    return errors


def _evidently(frames: Mapping[Side, pl.DataFrame]) -> tuple[Timer, dict[str, float]]:
    """Its time, and the p-value of each column."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it imports is full of deprecated interfaces
        from evidently import DataDefinition, Dataset, Report
        from evidently.presets import DataDriftPreset

        definition = DataDefinition(numerical_columns=list(NUMBERS), categorical_columns=list(CATEGORIES))
        current, reference = (
            Dataset.from_pandas(frames[side].to_pandas(), data_definition=definition)
            for side in ("current", "reference")
        )
        preset = DataDriftPreset(
            num_method="ks", cat_method="jensenshannon", num_threshold=ALPHA, cat_threshold=DISTANCE
        )
        report = Report([preset])
        with Timer() as taken:
            found = report.run(current, reference).dict()
    values = {
        metric["config"]["column"]: float(metric["value"])
        for metric in found["metrics"]
        if "column" in metric["config"]
    }
    return taken, values


def _measure(name: str, drift: Mapping[str, Any]) -> float:
    """What Evidently decides by: a p-value, or the Jensen–Shannon distance with natural logarithms."""
    if name in NUMBERS:
        return float(drift["ks_test"]["pvalue"])
    return float(drift["js_distance"]) * math.sqrt(math.log(2))


def _found(name: str, measure: float) -> bool:
    return measure <= ALPHA if name in NUMBERS else measure >= DISTANCE


def _pvalue(drift: Mapping[str, Any]) -> float:
    return float((drift.get("ks_test") or drift["chi_squared_test"])["pvalue"])


def _column(name: str, side: Side, rows: int, seed: int, first: int | None = None) -> pl.Series:
    """The values of a column in a window, the same whenever they are asked for; ``first``: only so many."""
    rng = np.random.default_rng([seed, _names().index(name), SIDES.index(side)])
    later = side == "current"
    if name == "status":
        return _categories(name, ["200", "429", "502"], [0.97, 0.02, 0.01], rows, rng)[:first]
    if name == "finish_reason":
        shares = [0.6, 0.28, 0.12] if later else [0.8, 0.15, 0.05]
        return _categories(name, ["stop", "length", "tool_calls"], shares, rows, rng)[:first]
    if name == "model":
        names = [f"model-{index}" for index in range(40)]
        return _categories(name, names, np.arange(40, 0, -1) / 820, rows, rng)[:first]
    values = rng.standard_normal(rows)
    if later and name in ("perplexity", "feature"):
        values += SHIFT
    if name in ("input_tokens", "output_tokens", "prompt_length", "answer_length"):
        scale = 400.0 if "tokens" in name else 2000.0
        return pl.Series(name, np.floor(scale * np.exp(values * 0.6)))[:first]
    if name == "toxicity":
        values[rng.random(rows) < 0.3] = 0.0
    elif name == "feature":
        values[rng.random(rows) < 0.05] = np.nan
        return pl.Series(name, values, nan_to_null=True)[:first]
    else:
        values = np.exp(values)
    return pl.Series(name, values)[:first]


def _categories(name: str, names: list[str], shares: Any, rows: int, rng: np.random.Generator) -> pl.Series:
    codes = np.searchsorted(np.cumsum(shares)[:-1], rng.random(rows), side="right")
    return pl.Series(name, names)[pl.Series(codes.astype(np.uint32))].alias(name)


def _names() -> tuple[str, ...]:
    return (*NUMBERS, *CATEGORIES)


def _kind_of(name: str) -> Kind:
    return Kind.NUMERIC if name in NUMBERS else Kind.CATEGORICAL


def _peak_rss_mb() -> float:
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")
    )
    return int(line.split()[1]) / 1024


if __name__ == "__main__":
    main()
