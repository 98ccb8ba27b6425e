"""The settings of the relabeling queue."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from relabel.label_schema import LabelSchema
from relabel.schema_definition import built
from relabel.schema_shape import SchemaShape
from servelens.errors import Invalid
from servelens.section import Positive, Section, refuse_duplicates


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


class _OfEndpoint(Section):
    endpoint: str = Field(description="Name of the endpoint.")


class LabelSchemaSettings(SchemaShape, _OfEndpoint):
    """What annotators are asked about the cases of an endpoint ([label schemas](label-schemas.md))."""

    # A number may come from the environment, as text.
    model_config = ConfigDict(strict=False)

    @model_validator(mode="after")
    def _builds(self) -> Self:
        try:
            self.build()
        except Invalid as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> LabelSchema:
        """The schema. Raises :class:`~servelens.errors.Invalid`."""
        return built(self)


class RelabelSettings(Section):
    """The queue of cases for people."""

    every_s: Positive = Field(15.0, description="Seconds between two looks at the new scores.")
    lease_s: Positive = Field(900.0, description="Seconds that a claimed case is kept for its annotator.")
    rules: list[RelabelRuleSettings] = Field(default_factory=list, description="What becomes a case.")
    schemas: list[LabelSchemaSettings] = Field(
        default_factory=list,
        description="What annotators are asked, per endpoint. Default: good or bad, a corrected answer, tags. A schema that is "
        "changed by API stays until its block here changes.",
    )

    @model_validator(mode="after")
    def _one_schema_each(self) -> Self:
        refuse_duplicates([each.endpoint for each in self.schemas], "schemas", "endpoint")
        return self
