from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from collector.inference_table import PAYLOAD_SCHEMA
from evaluators.drift.sketches.kinds import STANDARD_KINDS
from evaluators.drift.slices import Slice, Slicing
from evaluators.drift.sources import Kind
from evaluators.drift.window_data import observe
from evaluators.drift.window_sketches import WindowSketches
from evaluators.drift.windows import Window
from servelens.errors import Invalid
from tests.unit.evaluators.inference_rows import endpoint_tables, payload_rows

START = datetime(2026, 3, 4, 10, tzinfo=UTC)
WINDOW = Window(START, START + timedelta(hours=1))


def test_records_are_divided_by_columns_and_by_tags(tmp_path: Path) -> None:
    tables = endpoint_tables(tmp_path)
    rows = payload_rows(4, START, served_entity=["small", "small", "large", "large"]).to_arrow()
    tags = [[("region", "eu")], [("region", "us"), ("plan", "free")], None, [("plan", "paid")]]
    tables.payload.append(rows.append_column("tags", pa.array(tags, type=PAYLOAD_SCHEMA.field("tags").type)))
    slicing = Slicing(("served_entity", "tags.region"))
    sketches = WindowSketches.of(observe(tables, WINDOW, slicing=slicing), slicing, STANDARD_KINDS)
    assert {one: part.rows for one, part in sketches.slices.items()} == {
        Slice(): 4,
        Slice("served_entity", "large"): 2,
        Slice("served_entity", "small"): 2,
        Slice("tags.region", "eu"): 1,
        Slice("tags.region", "us"): 1,
    }
    # What records are divided by stays a column to look at.
    assert (
        sketches.of_slice(Slice("tags.region", "eu")).columns["served_entity"].column.kind is Kind.CATEGORICAL
    )


@pytest.mark.parametrize("key", ["prompt_text", "request", "tags", "tags.", "nonsense"])
def test_what_has_a_value_of_its_own_for_every_record_divides_nothing(key: str) -> None:
    with pytest.raises(Invalid, match="slices"):
        Slicing((key,))


def test_a_key_is_named_once_and_there_is_room_for_a_slice() -> None:
    with pytest.raises(Invalid, match="slices"):
        Slicing(("variant", "variant"))
    with pytest.raises(Invalid, match="max_slices"):
        Slicing(limit=0)
