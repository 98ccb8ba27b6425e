"""The settings of profiles and drift."""

from __future__ import annotations

from typing import Self

from pydantic import AwareDatetime, Field, model_validator

from servelens.section import Positive, Section


class DriftSettings(Section):
    """Profile and drift of one endpoint's records, window by window."""

    endpoint: str = Field(description="Name of the endpoint.")
    granularity: str = Field(
        "1 hour",
        pattern=r"^[1-9][0-9]{0,3} (minute|hour|day|week|month|year)s?$",
        description="Length of a window: `5 minutes`, `1 hour`, `1 day` …, aligned to the clock (UTC). Each window is "
        "compared with the one before it, or with the baseline.",
    )
    baseline_start: AwareDatetime | None = Field(
        None, description="Start of a fixed reference window, with a zone."
    )
    baseline_end: AwareDatetime | None = Field(None, description="Its end.")
    lag_s: float = Field(60.0, ge=0, description="Seconds after its end before a window is looked at.")
    every_s: Positive = Field(60.0, description="Seconds between two runs.")
    report_rows: int = Field(5_000, ge=100, le=50_000, description="Rows per window in the Evidently report.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.baseline_start is None) != (self.baseline_end is None):
            raise ValueError("baseline_end: give both 'baseline_start' and 'baseline_end', or none.")
        return self
