"""``servelens evaluation agreement``: how well an evaluator agrees with people, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from evaluators.agreement.measures import Estimate
from evaluators.ground_truth.quality import Interval
from servelens.assembly.agreement import MeasuredAgreement, measured_agreement
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.label_schemas import open_schema_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.settings_file import load_settings

_NOTHING = "insufficient data"
_BASES = {
    "control_sample": "the control sample",
    "all_cases": "all labeled cases, which evaluators chose: expect other precision and recall on the traffic",
}


def run(
    config: Path,
    endpoint: str,
    evaluator: str,
    *,
    target: Literal["request", "response"] = "response",
    above: float | None = None,
    below: float | None = None,
    positive: str | None = None,
    tag: str | None = None,
    precision: float | None = None,
    as_json: bool = False,
) -> int:
    """Measure and print; 0 also when there is too little to say."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        clock = SystemClock()
        endpoints = open_endpoint_store(settings, database, clock)
        measured = measured_agreement(
            settings,
            database,
            build_catalog(settings, endpoints).tables(endpoint),
            endpoint,
            evaluator,
            target=target,
            above=above,
            below=below,
            positive=positive,
            tag=tag,
            wanted_precision=precision,
            schemas=open_schema_store(settings, database, clock),
        )
    finally:
        database.dispose()
    if as_json:
        sys.stdout.write(json.dumps(measured.to_dict(), indent=2, ensure_ascii=False) + "\n")
    else:
        _print(measured)
    return 0


def _print(measured: MeasuredAgreement) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    found = measured.found
    console.print(
        f"{measured.evaluator} of the {measured.target} against people, endpoint {measured.endpoint}: "
        f"suspicious is {found.direction} {found.threshold:g}, and people's yes is an answer {measured.positive.words}."
    )
    table = Table("measure", "value", "95 %")
    decided = found.decision
    suggestion = found.suggestion
    table.add_row(
        "records labeled / compared / without a score",
        f"{found.labeled} / {found.compared} / {found.unscored}",
        "",
    )
    table.add_row(
        "people's yes / evaluator's yes",
        f"{found.positive} / {'-' if found.flagged is None else found.flagged}",
        "",
    )
    for name, estimate in (
        ("agreement", found.agreement),
        ("Cohen's kappa", found.kappa),
        ("ROC AUC", found.roc_auc),
    ):
        table.add_row(name, *_estimate(estimate))
    for name, value in (
        ("precision", None if decided is None else decided.precision),
        ("recall", None if decided is None else decided.recall),
        ("F1", None if decided is None else decided.f1),
        ("Brier score", found.brier),
        ("calibration error", found.calibration_error),
    ):
        table.add_row(name, _number(value), "")
    wanted = "" if found.wanted_precision is None else f" at a precision of {found.wanted_precision:g}"
    table.add_row(
        f"best threshold{wanted}",
        _number(None if suggestion is None else suggestion.threshold),
        "" if suggestion is None else _interval(suggestion.interval),
    )
    if suggestion is not None:
        on_it, elsewhere = _number(suggestion.decision.f1), _number(suggestion.f1_elsewhere)
        table.add_row("F1 there, on these records / on others", f"{on_it} / {elsewhere}", "")
        precision, recall = suggestion.precision_elsewhere, suggestion.recall_elsewhere
        table.add_row("precision / recall there, on others", f"{_number(precision)} / {_number(recall)}", "")
    console.print(table)
    _print_traffic(console, measured)
    for reason in found.insufficient:
        console.print(f"Insufficient data: {reason}.")
    if found.basis is not None and suggestion is not None:
        console.print(f"The best threshold is found on {_BASES[found.basis]}.")
    if measured.unanswered:
        console.print(
            f"{measured.unanswered} decided labels do not answer {measured.positive.field} and are left out."
        )
    if len(measured.versions) > 1:
        console.print(f"The scores are of several versions of the evaluator: {', '.join(measured.versions)}.")
    if measured.chosen and found.compared:
        console.print(
            f"{measured.chosen} of {found.compared} records were labeled because this evaluator found them suspicious: what it "
            "overlooks is seen less often, so recall and kappa are not those of all traffic."
        )


def _print_traffic(console: Console, measured: MeasuredAgreement) -> None:
    """What holds for the traffic: from the control sample, and from the cases that the evaluator chose."""
    found = measured.found
    sample, flagged, best = found.sample, found.flagged_cases, found.combined
    if sample is None:
        console.print(
            "No record is from a random control sample, so nothing is known of what the evaluator overlooks in the traffic."
        )
    table = Table("of all traffic, by the control sample", "value", "95 %")
    if sample is not None:
        counts = f"{sample.drawn} / {sample.compared} / {sample.waiting} / {sample.unscored}"
        table.add_row("drawn / compared / waiting / unscored", counts, "")
        for name, estimate in (
            ("people's yes", sample.prevalence),
            ("evaluator's yes", sample.flag_rate),
            ("precision, by the sample", sample.precision),
            ("recall, by the sample", sample.recall),
        ):
            table.add_row(name, *_estimate(estimate))
    if flagged is not None and flagged.cases:
        name = f"precision, by {flagged.cases} chosen cases"
        table.add_row(name if flagged.unfair is None else f"{name} (biased)", *_estimate(flagged.precision))
    if best is not None:
        source = {"flagged_cases": "chosen cases", "control_sample": "the sample"}
        for measure, estimate, where in (
            ("precision", best.precision, best.precision_from),
            ("recall", best.recall, best.recall_from),
        ):
            by = f", by {source[where]}" if where else ""
            table.add_row(f"best known {measure}{by}", *_estimate(estimate))
    if table.row_count:
        console.print(table)
    if flagged is not None and flagged.unfair is not None and measured.chosen:
        console.print(f"The cases that it chose are no fair part of what it flags: {flagged.unfair}.")
    for reason in () if sample is None else sample.insufficient:
        console.print(f"Control sample: {reason}.")
    if measured.borrowed:
        console.print(
            f"{measured.borrowed} sampled records have the label of a record that is nearly the same."
        )


def _estimate(estimate: Estimate | None) -> tuple[str, str]:
    return (_NOTHING, "") if estimate is None else (_number(estimate.value), _interval(estimate.interval))


def _number(value: float | None) -> str:
    return _NOTHING if value is None else f"{value:.3g}"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"{interval.low:.3g} to {interval.high:.3g}"
