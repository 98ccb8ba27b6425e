"""The settings of evaluations: which evaluator looks at which endpoint's records, and when."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from servelens.section import Positive, Section


class EvaluationSettings(Section):
    """One evaluator on one endpoint's records."""

    endpoint: str = Field(description="Name of the endpoint.")
    evaluator: str = Field(description="`toxicity`, `perplexity`, or one that an installed package adds.")
    every_s: Positive = Field(30.0, description="Seconds between two runs.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the evaluator, for example `target: request`."
    )
