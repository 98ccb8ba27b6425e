"""Which scores are past a threshold."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from servelens.errors import Invalid

Side: TypeAlias = Literal["request", "response"]
Direction: TypeAlias = Literal["above", "below"]


@dataclass(frozen=True, slots=True)
class Bound:
    """A score of ``evaluator`` on ``target`` over ``above``, or under ``below``: exactly one of them."""

    evaluator: str
    target: Side = "response"
    above: float | None = None
    below: float | None = None

    def __post_init__(self) -> None:
        """Raise :class:`~servelens.errors.Invalid` unless there is one threshold, and it is a number."""
        check_target(self.target)
        check_one_side(self.above, self.below)

    @property
    def direction(self) -> Direction:
        """Which side of the threshold is meant."""
        return "below" if self.above is None else "above"

    @property
    def threshold(self) -> float:
        """The threshold, whichever side it is of."""
        threshold = self.below if self.above is None else self.above
        assert threshold is not None, "checked when the bound was made"
        return threshold

    def __str__(self) -> str:
        return f"{self.evaluator} {self.target} {self.direction} {self.threshold:g}"


def check_target(target: str) -> None:
    """Raise :class:`~servelens.errors.Invalid` when it is no side of a record."""
    if target not in ("request", "response"):
        raise Invalid(f"{target!r} is not scored", field="target", fix="Use 'request' or 'response'.")


def check_one_side(above: float | None, below: float | None) -> None:
    """Raise :class:`~servelens.errors.Invalid` unless there is one threshold, and it is a number."""
    if (above is None) == (below is None):
        raise Invalid(
            "a rule has one threshold", field="above", fix="Give either 'above' or 'below', not both."
        )
    for side, threshold in (("above", above), ("below", below)):
        if threshold is not None and math.isnan(threshold):
            raise Invalid("NaN is no threshold", field=side, fix="Give a number.")
