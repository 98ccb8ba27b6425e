"""What the labels of a case come to: its one label, or a dispute.

Two labels say the same when they answer alike what *decides* in the schema. Labels of several versions of a schema are
compared on the fields that decide in all of these versions; where there is none, nothing can differ. Of those who are in
the majority the earliest gives the case its label, one with a corrected answer before others.

The share of agreement is that of the labels which say the same as the decision, without the adjudicator's own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from relabel.case import Resolution
from relabel.label import Label
from relabel.label_schema import Field, FieldType, LabelSchema


@dataclass(frozen=True, slots=True)
class Ballot:
    """A label and the schema that it answers."""

    label: Label
    schema: LabelSchema


@dataclass(frozen=True, slots=True)
class Verdict:
    """``chosen`` is the place of the label among the ballots, in the order in which they were given; ``None`` is a dispute,
    or a case that everybody skipped, which has no ``resolution`` either.
    """

    chosen: int | None
    resolution: Resolution | None
    agreement: float | None


def decide(ballots: Sequence[Ballot]) -> Verdict:
    """What the labels of annotators come to; ``ballots`` are in the order in which they were given. The newest schema among
    them says when it is a dispute.
    """
    if not ballots:
        return Verdict(None, None, None)
    if len(ballots) == 1:
        return Verdict(0, Resolution.SINGLE, 1.0)
    groups = _groups(ballots)
    largest = max(groups, key=len)  # of several that are as large, the one with the earliest label
    agreement = len(largest) / len(ballots)
    chosen = next((place for place in largest if ballots[place].label.corrected_answer), largest[0])
    if len(groups) == 1:
        return Verdict(chosen, Resolution.UNANIMOUS, agreement)
    policy = max((ballot.schema for ballot in ballots), key=lambda schema: schema.version).adjudicate
    if policy == "disagreement" or (policy == "no_majority" and 2 * len(largest) <= len(ballots)):
        return Verdict(None, None, agreement)
    return Verdict(chosen, Resolution.MAJORITY, agreement)


def agreeing(ballots: Sequence[Ballot], decided: Ballot) -> float | None:
    """The share of ``ballots`` that say the same as the adjudicator's; ``None`` when there is none."""
    if not ballots:
        return None
    groups = _groups((*ballots, decided))
    same = next(group for group in groups if len(ballots) in group)
    return (len(same) - 1) / len(ballots)


def _groups(ballots: Sequence[Ballot]) -> list[list[int]]:
    """The places of the ballots that say the same, group by group, in the order of their first."""
    names = _compared({ballot.schema.version: ballot.schema for ballot in ballots}.values())
    groups: dict[str, list[int]] = {}
    for place, ballot in enumerate(ballots):
        answers = ballot.schema.answers(ballot.label)
        said = [_comparable(ballot.schema.field(name), answers.get(name)) for name in names]
        groups.setdefault(json.dumps(said), []).append(place)
    return list(groups.values())


def _compared(schemas: Any) -> list[str]:
    decisive = [{each.name for each in schema.fields if each.decides} for schema in schemas]
    return sorted(set.intersection(*decisive))


def _comparable(asked: Field | None, value: Any) -> Any:
    """An answer in a form in which equal ones are equal: order means nothing in a choice of several, nor does space around
    a text.
    """
    if value is None or asked is None:
        return None
    if asked.type in (FieldType.MULTIPLE_CHOICE, FieldType.TAGS):
        return sorted(value)
    if asked.type is FieldType.SPANS:
        return sorted([span["start"], span["end"], span["label"]] for span in value)
    if asked.type in (FieldType.TEXT, FieldType.CORRECTED_ANSWER):
        return value.strip()
    return value
