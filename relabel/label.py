"""What an annotator says of a case, apart from where it is stored.

Four parts of a label mean the same under every schema, because exports and agreement are made of them: the rating, the
corrected answer, the tags, and which of several answers is preferred. What else a schema asks for is in ``values``, by the
name of the field.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, TypeAlias

from servelens.errors import Invalid

MAX_CORRECTED_ANSWER_LENGTH = 1_000_000
MAX_COMMENT_LENGTH = 10_000
MAX_TAGS = 50
MAX_TAG_LENGTH = 100

ANSWER: Final = "answer"
"""``preferred`` when the recorded answer is the best."""
TIE: Final = "tie"
"""``preferred`` when none is better."""

Value: TypeAlias = str | int | list[str] | list[dict[str, Any]]
"""Of a choice or a text, a scale, a multiple choice, or spans (``start``, ``end``, ``label``, ``text``)."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Rating(StrEnum):
    """Whether the recorded answer is fit to be learnt from."""

    GOOD = "good"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Label:
    """An annotator's judgement. ``corrected_answer`` is what the model should have answered; ``rating`` is ``None`` where
    the schema asks for none; ``preferred`` is :data:`ANSWER`, :data:`TIE` or the id of an alternative.

    Text is kept as given, except that tags are stripped and repeated ones dropped, and a blank comment is no comment.
    Whether it fits a schema is said by :meth:`relabel.label_schema.LabelSchema.read`.
    """

    rating: Rating | None = None
    corrected_answer: str | None = None
    tags: tuple[str, ...] = ()
    comment: str | None = None
    preferred: str | None = None
    values: Mapping[str, Value] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise :class:`~servelens.errors.Invalid`, naming the field, when the label cannot be kept."""
        if self.rating is not None:
            object.__setattr__(self, "rating", checked_rating(self.rating))
        if self.corrected_answer is not None:
            check_text(self.corrected_answer, "corrected_answer", MAX_CORRECTED_ANSWER_LENGTH)
            if not self.corrected_answer.strip():
                raise Invalid(
                    "it is blank", field="corrected_answer", fix="Leave it out when there is no correction."
                )
        object.__setattr__(self, "tags", _checked_tags(self.tags))
        if self.comment is not None:
            check_text(self.comment, "comment", MAX_COMMENT_LENGTH)
            if not self.comment.strip():
                object.__setattr__(self, "comment", None)


@dataclass(frozen=True, slots=True)
class GivenLabel:
    """A label with who gave it and when. ``schema_version`` is what the annotator was asked, ``duration_s`` how long they
    had the case, ``source`` the tool that it came from (``servelens``, ``label_studio``, ``argilla``).
    """

    annotator: str
    label: Label
    created_at: datetime
    schema_version: int = 0
    is_adjudication: bool = False
    duration_s: float | None = None
    source: str = "servelens"


def checked_rating(rating: str) -> Rating:
    """The rating of that name. Raises :class:`~servelens.errors.Invalid` when there is none."""
    try:
        return Rating(rating)
    except ValueError as error:
        raise Invalid(f"{rating!r} is not a rating", field="rating", fix="Use 'good' or 'bad'.") from error


def check_text(text: str, field: str, limit: int) -> None:
    """Raise :class:`~servelens.errors.Invalid` when ``text`` is longer than ``limit``, or nothing can store it."""
    if len(text) > limit:
        raise Invalid(f"it has {len(text)} characters", field=field, fix=f"Give at most {limit}.")
    if _UNSTORABLE.search(text):
        raise Invalid(
            "it contains a NUL or half a surrogate pair, which is not text",
            field=field,
            fix="Remove the character.",
        )


def _checked_tags(tags: tuple[str, ...]) -> tuple[str, ...]:
    checked = []
    for index, tag in enumerate(tags):
        check_text(tag, f"tags[{index}]", MAX_TAG_LENGTH)
        if not tag.strip():
            raise Invalid("it is blank", field=f"tags[{index}]", fix="Leave blank tags out.")
        checked.append(tag.strip())
    if len(checked) > MAX_TAGS:
        raise Invalid(f"there are {len(checked)} tags", field="tags", fix=f"Give at most {MAX_TAGS}.")
    return tuple(dict.fromkeys(checked))
