"""The settings of the relabeling queue."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from servelens.section import Positive, Section


class RelabelRuleSettings(Section):
    """Which scores make a record a case."""

    endpoint: str = Field(description="Name of the endpoint.")
    evaluator: str = Field(description="Name of the evaluator.")
    target: Literal["request", "response"] = Field("response", description="Which side the score is of.")
    above: float | None = Field(None, description="A score over this makes a case.")
    below: float | None = Field(None, description="A score under this makes a case.")
    priority: int = Field(0, ge=-100, le=100, description="Cases of a higher priority are claimed first.")

    @model_validator(mode="after")
    def _one_side(self) -> Self:
        if (self.above is None) == (self.below is None):
            raise ValueError("above: give either 'above' or 'below', not both and not none.")
        return self


class RelabelSettings(Section):
    """The queue of cases for people."""

    every_s: Positive = Field(15.0, description="Seconds between two looks at the new scores.")
    lease_s: Positive = Field(900.0, description="Seconds that a claimed case is kept for its annotator.")
    rules: list[RelabelRuleSettings] = Field(default_factory=list, description="What becomes a case.")
