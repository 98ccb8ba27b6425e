"""The rules that make a record a case."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from servelens.errors import Invalid


@dataclass(frozen=True, slots=True)
class Rule:
    """A score of ``evaluator`` on ``target`` over ``above`` (or under ``below``) makes a case."""

    evaluator: str
    target: Literal["request", "response"] = "response"
    above: float | None = None
    below: float | None = None
    priority: int = 0

    def __post_init__(self) -> None:
        """Raise :class:`~servelens.errors.Invalid` unless there is one threshold, and it is a number."""
        if (self.above is None) == (self.below is None):
            raise Invalid(
                "a rule has one threshold", field="above", fix="Give either 'above' or 'below', not both."
            )
        if self.target not in ("request", "response"):
            raise Invalid(
                f"{self.target!r} is not scored", field="target", fix="Use 'request' or 'response'."
            )
        if math.isnan(self.threshold):
            raise Invalid("NaN is no threshold", field=self.direction, fix="Give a number.")

    @property
    def direction(self) -> Literal["above", "below"]:
        """Which side of the threshold makes a case."""
        return "below" if self.above is None else "above"

    @property
    def threshold(self) -> float:
        """The threshold, whichever side it is of."""
        threshold = self.below if self.above is None else self.above
        assert threshold is not None, "checked when the rule was made"
        return threshold
