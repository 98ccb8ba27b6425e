from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from evaluators.drift.references import FixedTable, FixedWindow, OtherVariant, Previous, Trailing
from evaluators.drift.windows import Window
from servelens.assembly.drift import reference_of
from servelens.drift_settings import DriftSettings

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


def settings(**values: Any) -> DriftSettings:
    return DriftSettings.model_validate({"endpoint": "chat", **values})


def test_each_way_to_name_a_reference_gives_it() -> None:
    assert reference_of(settings(), None) == Previous()
    assert reference_of(settings(trailing="7 days"), None) == Trailing(timedelta(days=7), "7 days")
    assert reference_of(settings(baseline_start=START, baseline_end=END), None) == FixedWindow(
        Window(START, END)
    )
    assert reference_of(settings(compare_with="variant champion"), None) == OtherVariant("champion")
    entity = settings(compare_with="served_entity champion", slices=["served_entity"])
    assert reference_of(entity, None) == OtherVariant("champion", "served_entity")
    table = reference_of(settings(baseline_table="/data/training.csv"), None)
    assert isinstance(table, FixedTable)
    assert table.name == "table /data/training.csv"


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"trailing": "a while"}, "trailing"),
        ({"trailing": "1 month"}, "trailing"),
        ({"compare_with": "champion"}, "compare_with"),
        ({"baseline_start": START}, "baseline_end"),
        ({"baseline_start": END, "baseline_end": START}, "baseline_end"),
        ({"trailing": "1 day", "compare_with": "variant a"}, "compare_with"),
        ({"compare_with": "variant a", "slices": ["model"]}, "slices"),
        ({"max_slices": 0}, "max_slices"),
        ({"baseline_table": ""}, "baseline_table"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_name(values: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        settings(**values)
