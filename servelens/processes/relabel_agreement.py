"""``servelens relabel agreement``: how far the people agree who label an endpoint's cases, as tables or as JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from relabel.agreement.measure import Measure
from relabel.agreement.report import PeopleAgreement, people_agreement
from servelens.assembly.database import build_database
from servelens.assembly.endpoint_store import open_endpoint_store
from servelens.assembly.label_schemas import open_schema_store
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.settings_file import load_settings

_NAMES = {
    "raw": "same answer",
    "fleiss": "Fleiss' kappa",
    "alpha": "Krippendorff's alpha",
    "alpha_masi": "alpha (MASI)",
    "alpha_jaccard": "alpha (Jaccard)",
    "f1_exact": "F1, same spans",
    "f1_overlap": "F1, overlapping spans",
}


def run(config: Path, endpoint: str, *, as_json: bool = False) -> int:
    """Measure and print; 0 also when there is too little to say."""
    settings = load_settings(config)
    database = build_database(settings)
    try:
        clock = SystemClock()
        endpoints = open_endpoint_store(settings, database, clock)
        build_catalog(settings, endpoints).tables(endpoint)  # raises for an endpoint that is not there
        report = people_agreement(database, endpoint, open_schema_store(settings, database, clock))
    finally:
        database.dispose()
    if as_json:
        sys.stdout.write(json.dumps(report.to_dict(), indent=2, ensure_ascii=False) + "\n")
    else:
        _print(report)
    return 0


def _print(report: PeopleAgreement) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"{report.endpoint}: {report.labels} labels of {report.cases} cases; {report.cases_of_several} have two or more."
    )
    fields = Table("field", "measure", "value", "95 %", "cases", "")
    for field in report.fields:
        for name, measure in field.measures.items():
            fields.add_row(field.field, _NAMES[name], *_cells(measure))
    pairs = Table("field", "annotators", "cases", "same answer", "Cohen's kappa", "95 %", "")
    for pair in report.pairs:
        value, interval, _, reason = _cells(pair.kappa)
        both = f"{pair.first}, {pair.second}"
        pairs.add_row(pair.field, both, str(pair.cases), _number(pair.raw.value), value, interval, reason)
    people = Table("annotator", "labels", "skips", "median s", "gold right", "95 %", "as decided", "95 %")
    for each in report.annotators:
        people.add_row(
            each.annotator,
            str(each.labels),
            str(each.skips),
            _number(each.median_s),
            *_of(each.gold),
            *_of(each.decision),
        )
    for table in (fields, pairs, people):
        if table.row_count:
            console.print(table)
    if report.pairs_left_out:
        console.print(f"{report.pairs_left_out} more pairs have fewer cases in common and are not shown.")
    for version, count in report.unread.items():
        console.print(
            f"{count} labels are of schema version {version}, which is not known here, and are left out."
        )


def _cells(measure: Measure) -> tuple[str, str, str, str]:
    return _number(measure.value), _interval(measure), str(measure.cases), measure.reason or ""


def _of(measure: Measure) -> tuple[str, str]:
    value = "-" if measure.value is None else f"{measure.value:.3g} of {measure.cases}"
    return value, _interval(measure)


def _interval(measure: Measure) -> str:
    return "" if measure.interval is None else f"{measure.interval.low:.3g} to {measure.interval.high:.3g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
