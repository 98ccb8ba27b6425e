"""relabel.queue.deciding: what labels come to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relabel.case import Resolution
from relabel.label import Label, Rating
from relabel.label_schema import Adjudicate, Field, FieldType, LabelSchema, default_schema
from relabel.queue.deciding import Ballot, Verdict, agreeing, decide

GOOD, BAD = Label(Rating.GOOD), Label(Rating.BAD)
FIXED = Label(Rating.BAD, "better")
SCHEMA = default_schema()


def _ballots(*labels: Label, adjudicate: Adjudicate = "disagreement") -> list[Ballot]:
    return [Ballot(label, replace(SCHEMA, adjudicate=adjudicate)) for label in labels]


@pytest.mark.parametrize(
    ("labels", "verdict"),
    [
        ((), Verdict(None, None, None)),
        ((BAD,), Verdict(0, Resolution.SINGLE, 1.0)),
        ((BAD, BAD), Verdict(0, Resolution.UNANIMOUS, 1.0)),
        ((BAD, FIXED, Label(Rating.BAD, "best")), Verdict(1, Resolution.UNANIMOUS, 1.0)),
        (
            (Label(Rating.BAD, tags=("a",)), Label(Rating.BAD, tags=("b",))),
            Verdict(0, Resolution.UNANIMOUS, 1.0),
        ),
        ((GOOD, BAD), Verdict(None, None, 0.5)),
        ((GOOD, BAD, BAD), Verdict(None, None, 2 / 3)),
    ],
)
def test_labels_that_agree_decide_and_others_are_disputed(
    labels: tuple[Label, ...], verdict: Verdict
) -> None:
    assert decide(_ballots(*labels)) == verdict


@pytest.mark.parametrize(
    ("policy", "labels", "verdict"),
    [
        ("no_majority", (GOOD, BAD, BAD), Verdict(1, Resolution.MAJORITY, 2 / 3)),
        ("no_majority", (GOOD, BAD, FIXED), Verdict(2, Resolution.MAJORITY, 2 / 3)),
        ("no_majority", (GOOD, BAD), Verdict(None, None, 0.5)),
        ("no_majority", (GOOD, GOOD, BAD, BAD), Verdict(None, None, 0.5)),
        ("never", (GOOD, BAD, BAD), Verdict(1, Resolution.MAJORITY, 2 / 3)),
        ("never", (GOOD, BAD), Verdict(0, Resolution.MAJORITY, 0.5)),
        ("never", (BAD, GOOD, GOOD, BAD), Verdict(0, Resolution.MAJORITY, 0.5)),
    ],
)
def test_the_schema_says_when_disagreement_is_a_dispute(
    policy: Adjudicate, labels: tuple[Label, ...], verdict: Verdict
) -> None:
    assert decide(_ballots(*labels, adjudicate=policy)) == verdict


def _schema(*fields: Field, version: int = 1, adjudicate: Adjudicate = "disagreement") -> LabelSchema:
    return LabelSchema(fields=fields, version=version, adjudicate=adjudicate)


def _choice(name: str, *, decides: bool = True) -> Field:
    return Field(name=name, type=FieldType.CHOICE, options=("a", "b"), decides=decides)


def _answered(schema: LabelSchema, **values: object) -> Ballot:
    return Ballot(Label(values=values), schema)


def test_only_fields_that_decide_are_compared() -> None:
    schema = _schema(_choice("one"), _choice("two", decides=False))
    same = [_answered(schema, one="a", two="a"), _answered(schema, one="a", two="b")]
    assert decide(same).resolution is Resolution.UNANIMOUS
    assert decide([*same, _answered(schema, one="b", two="a")]).resolution is None
    # An answer and none are not the same.
    assert decide([_answered(schema, one="a"), _answered(schema, two="a")]).resolution is None


def test_the_order_of_several_choices_and_spans_means_nothing() -> None:
    several = Field(name="several", type=FieldType.MULTIPLE_CHOICE, options=("a", "b"), decides=True)
    spans = Field(name="spans", type=FieldType.SPANS, options=("x",), decides=True)
    schema = _schema(several, spans)
    first, second = ({"start": start, "end": start + 1, "label": "x", "text": "t"} for start in (0, 5))
    ballots = [
        _answered(schema, several=["a", "b"], spans=[first, second]),
        _answered(schema, several=["b", "a"], spans=[second, first]),
    ]
    assert decide(ballots).resolution is Resolution.UNANIMOUS
    assert decide([*ballots, _answered(schema, several=["a", "b"], spans=[first])]).chosen is None


def test_versions_are_compared_on_what_decides_in_both() -> None:
    old = _schema(_choice("one"), _choice("gone"), version=1, adjudicate="never")
    new = _schema(_choice("one"), _choice("new"), version=2)
    agree = [_answered(old, one="a", gone="a"), _answered(new, one="a", new="b")]
    assert decide(agree) == Verdict(0, Resolution.UNANIMOUS, 1.0)
    differ = [_answered(old, one="a", gone="a"), _answered(new, one="b", new="b")]
    assert decide(differ).chosen is None, "the newest schema among them says that it is a dispute"
    assert decide(list(reversed(differ))).chosen is None


def test_nothing_that_decides_is_no_disagreement() -> None:
    schema = _schema(Field(name="text", type=FieldType.TEXT))
    assert (
        decide([_answered(schema, text="x"), _answered(schema, text="y")]).resolution is Resolution.UNANIMOUS
    )


def test_agreement_with_an_adjudicator_leaves_their_own_label_out() -> None:
    [decided] = _ballots(BAD)
    assert agreeing(_ballots(GOOD, BAD, BAD, GOOD), decided) == 0.5
    assert agreeing(_ballots(GOOD, GOOD), decided) == 0.0
    assert agreeing([], decided) is None
