"""How far the people agree who label an endpoint's cases: per field, per pair of people, and per person.

Invariant: only labels that were given without knowing others' are compared, so neither those of adjudicators nor those of gold
cases; and nothing that corrects for chance is given for fewer than :data:`MIN_CASES` cases with two labels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np

from relabel.agreement.annotators import AnnotatorReport, annotator_reports
from relabel.agreement.answers import CASES_AT_ONCE, Column, LabelTable, read_labels
from relabel.agreement.fleiss_kappa import fleiss_kappa
from relabel.agreement.krippendorff_alpha import krippendorff_alpha
from relabel.agreement.measure import Measure, undetermined
from relabel.agreement.pairs import PairAgreement, pair_agreements
from relabel.agreement.ratings import Integers, Ratings
from relabel.agreement.raw import raw_agreement
from relabel.agreement.set_agreement import set_alpha
from relabel.agreement.span_agreement import Span, span_f1
from relabel.label_schema import FieldType, Schemas
from servelens.database import Database

MIN_CASES: Final = 20
"""Cases with two labels from which on a measure that corrects for chance is given."""
MOST_PAIRS: Final = 300
_MOST_SHARES: Final = 20

Level: TypeAlias = Literal["nominal", "ordinal", "set", "spans"]
_LEVELS: Final[dict[FieldType, Level]] = {
    FieldType.SCALE: "ordinal",
    FieldType.MULTIPLE_CHOICE: "set",
    FieldType.TAGS: "set",
    FieldType.SPANS: "spans",
}


@dataclass(frozen=True, slots=True)
class FieldAgreement:
    """One field. ``cases`` have two labels or more; ``people`` gave the ``labels`` of all cases.

    ``measures`` by name: ``raw`` always; ``fleiss`` and ``alpha`` of names and scales; ``alpha_masi`` and ``alpha_jaccard`` of
    sets; ``f1_exact`` and ``f1_overlap`` of spans. ``shares``: how often each answer was given; of sets and spans, in how
    many labels a tag or a kind of span is.
    """

    field: str
    type: FieldType
    level: Level
    scale: int | None
    decides: bool
    versions: tuple[int, ...]
    labels: int
    people: int
    cases: int
    measures: dict[str, Measure]
    shares: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "type": str(self.type)}


@dataclass(frozen=True, slots=True)
class PeopleAgreement:
    """The report. ``labels`` were given without knowing others', to ``cases``; ``cases_of_several`` have two or more.

    ``pairs_left_out`` are pairs of people beyond :data:`MOST_PAIRS` a field; ``unread`` counts labels by a schema version
    that nobody knows. ``newest_decision`` is the id of the newest decision when it was made.
    """

    endpoint: str
    newest_decision: int
    labels: int
    cases: int
    cases_of_several: int
    min_cases: int
    fields: tuple[FieldAgreement, ...]
    pairs: tuple[PairAgreement, ...]
    pairs_left_out: int
    annotators: tuple[AnnotatorReport, ...]
    unread: dict[int, int]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return {**asdict(self), "fields": [each.to_dict() for each in self.fields]}


def people_agreement(
    database: Database,
    endpoint: str,
    schemas: Schemas | None = None,
    *,
    min_cases: int = MIN_CASES,
    cases_at_once: int = CASES_AT_ONCE,
) -> PeopleAgreement:
    """The report of ``endpoint``, as of now, read so many cases at a time.

    Raises :class:`~servelens.errors.Unavailable` when the database fails.
    """
    table = read_labels(database, endpoint, schemas, cases_at_once=cases_at_once)
    fields, pairs, left_out = [], [], 0
    for column in table.columns.values():
        fields.append(_field(column, min_cases))
        if fields[-1].level in ("nominal", "ordinal"):
            found = pair_agreements(column, table.people, min_cases=min_cases)
            pairs += found[:MOST_PAIRS]
            left_out += max(0, len(found) - MOST_PAIRS)
    per_case = _independent(table)
    return PeopleAgreement(
        endpoint=endpoint,
        newest_decision=table.newest_decision,
        labels=table.independent,
        cases=len(per_case),
        cases_of_several=int(np.count_nonzero(per_case >= 2)),
        min_cases=min_cases,
        fields=tuple(sorted(fields, key=lambda each: not each.decides)),
        pairs=tuple(pairs),
        pairs_left_out=left_out,
        annotators=tuple(annotator_reports(table)),
        unread=dict(sorted(table.unread.items())),
    )


def _independent(table: LabelTable) -> Integers:
    """How many labels each case has that were given without knowing others'."""
    judged = np.fromiter((label in table.adjudicated for label in table.label_ids), bool, len(table.cases))
    cases = np.frombuffer(table.cases, dtype=np.int64)[~judged]
    return np.unique(cases, return_counts=True)[1].astype(np.int64)


def level_of(column: Column) -> Level:
    """What the answers of a field are: names, places on a scale, sets or spans."""
    return "ordinal" if column.asked.scale is not None else _LEVELS.get(column.asked.type, "nominal")


def _field(column: Column, min_cases: int) -> FieldAgreement:
    level = level_of(column)
    cases, codes = (np.frombuffer(each, dtype=np.int64) for each in (column.cases, column.codes))
    ratings = Ratings.of_codes(cases, codes, column.categories)
    measures = {"raw": raw_agreement(ratings)}
    if level == "spans":
        spans = _spans(cases, codes, column.categories)
        measures["f1_exact"] = span_f1(spans, "exact")
        measures["f1_overlap"] = span_f1(spans, "overlap")
    elif level == "set":
        measures["alpha_masi"] = set_alpha(ratings, "masi")
        measures["alpha_jaccard"] = set_alpha(ratings, "jaccard")
    else:
        measures["fleiss"] = fleiss_kappa(ratings)
        measures["alpha"] = krippendorff_alpha(ratings, level)
    return FieldAgreement(
        field=column.asked.name,
        type=column.asked.type,
        level=level,
        scale=column.asked.scale,
        decides=column.decides,
        versions=tuple(sorted(column.versions)),
        labels=len(codes),
        people=len(set(column.people)),
        cases=ratings.cases,
        measures={
            name: measure if name == "raw" else _enough(measure, min_cases)
            for name, measure in measures.items()
        },
        shares=_shares(codes, column.categories, level),
    )


def _enough(measure: Measure, min_cases: int) -> Measure:
    if measure.cases >= min_cases:
        return measure
    have = "1 case has" if measure.cases == 1 else f"{measure.cases} cases have"
    return undetermined(measure.cases, f"{have} two labels; {min_cases} are needed")


def _spans(cases: Integers, codes: Integers, categories: list[Hashable]) -> list[list[tuple[Span, ...]]]:
    order = np.argsort(cases, kind="stable")
    _, starts = np.unique(cases[order], return_index=True)
    return [[categories[code] for code in each] for each in np.split(codes[order], starts[1:])]


def _shares(codes: Integers, categories: list[Hashable], level: Level) -> dict[str, float]:
    counts = np.bincount(codes, minlength=len(categories))
    found: Counter[str] = Counter()
    for place in np.flatnonzero(counts):
        answer: Any = categories[place]
        several = {span[2] for span in answer} if level == "spans" else answer
        for word in several if level in ("set", "spans") else (str(answer),):
            found[word] += int(counts[place])
    return {word: count / len(codes) for word, count in found.most_common(_MOST_SHARES)}
