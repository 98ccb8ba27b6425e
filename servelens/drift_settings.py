"""The settings of profiles and drift."""

from __future__ import annotations

from typing import Final, Self

from pydantic import AwareDatetime, Field, model_validator

from servelens.section import Positive, Section

_LENGTH: Final = r"^[1-9][0-9]{0,3} (minute|hour|day|week)s?$"


class DriftSettings(Section):
    """Profile and drift of one endpoint's records, window by window, against one reference: the window before, unless
    another is named. For several references, write several of these."""

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
    trailing: str | None = Field(
        None, pattern=_LENGTH, description="Reference: so much time before the window, such as `7 days`."
    )
    baseline_table: str | None = Field(
        None,
        min_length=1,
        description="Reference: a data set, such as the training set, with columns named like ours: the folder or address "
        "of a Delta table, or a path that ends in `.parquet` or `.csv`.",
    )
    compare_with: str | None = Field(
        None,
        pattern=r"^(variant|served_entity) \S.*$",
        description="Reference: `variant NAME`: every other variant of an experiment is compared with this one in the same "
        "window. `served_entity NAME`: every other served entity, also without an experiment.",
    )
    slices: list[str] = Field(
        ["variant"],
        description="What records are divided by, beside all together: `variant`, `served_entity`, `entity_version`, "
        "`model`, `api`, `experiment`, `finish_reason`, `error_type`, `status_code`, `is_stream`, `phase` or `tags.NAME`.",
    )
    max_slices: int = Field(
        20,
        ge=1,
        le=200,
        description="Slices of each kind in a window; the smallest beyond that are left out.",
    )
    lag_s: float = Field(60.0, ge=0, description="Seconds after its end before a window is looked at.")
    every_s: Positive = Field(60.0, description="Seconds between two runs.")
    report_rows: int = Field(5_000, ge=100, le=50_000, description="Rows per window in the Evidently report.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if (self.baseline_start is None) != (self.baseline_end is None):
            raise ValueError("baseline_end: give both 'baseline_start' and 'baseline_end', or none.")
        if self.baseline_start and self.baseline_end and self.baseline_start >= self.baseline_end:
            raise ValueError("baseline_end: it must be later than 'baseline_start'.")
        given = [
            name
            for name in ("baseline_start", "trailing", "baseline_table", "compare_with")
            if getattr(self, name) is not None
        ]
        if len(given) > 1:
            raise ValueError(
                f"{given[1]}: there is a reference already, '{given[0]}'; write a second block for another."
            )
        if self.compare_with is not None and (key := self.compare_with.partition(" ")[0]) not in self.slices:
            raise ValueError(f"slices: 'compare_with: {self.compare_with}' needs '{key}' among them.")
        return self
