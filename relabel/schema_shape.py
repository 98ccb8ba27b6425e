"""The keys of a label schema as it is written, in the settings file and by API: their types, bounds and meanings.

What keys must agree on is said by :mod:`relabel.schema_definition`. Nothing is guessed from another type: an option ``yes``
without quotes is a truth value to YAML, and refused.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from relabel.label_schema import (
    MAX_ANNOTATORS,
    MAX_FIELDS,
    MAX_OPTIONS,
    MAX_SCALE,
    Adjudicate,
    Side,
)

MAX_GUIDELINES_LENGTH: Final = 50_000
MAX_TITLE_LENGTH: Final = 200
MAX_HELP_LENGTH: Final = 2_000
MAX_OPTION_LENGTH: Final = 200
MAX_ADJUDICATORS: Final = 100
MAX_SUGGESTIONS: Final = 20
MAX_GOLD_EVERY: Final = 10_000

TypeName: TypeAlias = Literal[
    "rating",
    "scale",
    "choice",
    "multiple_choice",
    "spans",
    "text",
    "corrected_answer",
    "preference",
    "tags",
]

_Number = Annotated[float, Field(allow_inf_nan=False)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SuggestionShape(_Shape):
    """An answer that is offered to the annotator because of a score."""

    evaluator: str = Field(
        min_length=1, max_length=255, description="Name of the scores: the evaluator's, or `scores_as`."
    )
    target: Side = Field("response", description="Which side the score is of.")
    above: _Number | None = Field(None, description="Offer `value` when the score is over this.")
    below: _Number | None = Field(None, description="Offer `value` when the score is under this.")
    value: str | int | None = Field(
        None,
        description="What is offered. Without `above` and `below`: the score's label, where the field can have it.",
    )


class FieldShape(_Shape):
    """One thing that annotators are asked."""

    name: str = Field(description="Its name in labels: letters, digits, `_` and `-`.")
    type: TypeName = Field(
        description="What is asked ([label schemas](label-schemas.md) shows each). Of `rating`, `corrected_answer`, "
        "`preference` and `tags` there can be one."
    )
    title: str | None = Field(
        None, max_length=MAX_TITLE_LENGTH, description="What the page calls it. Default: the name."
    )
    help: str | None = Field(
        None, max_length=MAX_HELP_LENGTH, description="A sentence that the page shows beside it."
    )
    required: bool = Field(False, description="Whether a label must answer it.")
    options: list[str] | None = Field(
        None,
        max_length=MAX_OPTIONS,
        description="What can be chosen, or what a span can be called: of `choice`, `multiple_choice` and `spans`.",
    )
    scale: int | None = Field(
        None,
        ge=2,
        le=MAX_SCALE,
        description="Highest number, from 1 on: of `scale`, and of a `rating` that is not just good or bad.",
    )
    good_from: int | None = Field(
        None, description="Of a `rating` with a scale: the lowest number that is good. Default: the highest."
    )
    of: Side | None = Field(None, description="Of `spans`: which text they mark. Default: `response`.")
    decides: bool | None = Field(
        None,
        description="Whether two who answer it differently disagree about the case. Default: `rating`, `scale`, `choice` and "
        "`preference` do.",
    )
    suggest: list[SuggestionShape] = Field(
        default_factory=list,
        max_length=MAX_SUGGESTIONS,
        description="Answers to offer because of a score, where `show_suggestions` says so.",
    )


class SchemaShape(_Shape):
    """What annotators are asked about the cases of an endpoint."""

    fields: list[FieldShape] = Field(min_length=1, max_length=MAX_FIELDS, description="What is asked.")
    guidelines: str | None = Field(
        None, max_length=MAX_GUIDELINES_LENGTH, description="What annotators should know, shown as text."
    )
    annotators: int = Field(1, ge=1, le=MAX_ANNOTATORS, description="How many people label each case.")
    adjudicate: Adjudicate = Field(
        "disagreement",
        description="When somebody decides: at any `disagreement`, only when there is `no_majority`, or `never`.",
    )
    adjudicators: list[str] = Field(
        default_factory=list,
        max_length=MAX_ADJUDICATORS,
        description="Who may decide. Default: everybody who has not labeled the case.",
    )
    gold_every: int | None = Field(
        None,
        ge=1,
        le=MAX_GOLD_EVERY,
        description="A gold case for each annotator after so many others. Default: none.",
    )
    show_suggestions: bool = Field(
        False, description="Whether annotators see what `suggest` offers before they answer."
    )
