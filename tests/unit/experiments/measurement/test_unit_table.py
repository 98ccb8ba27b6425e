from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from experiments.measurement.unit_table import Damaged, UnitTable, write_segment


def _rows(units: list[int], value: float) -> pl.DataFrame:
    return pl.DataFrame(
        {"unit": sorted(units), "s0": [value] * len(units)}, schema={"unit": pl.UInt64, "s0": pl.Float64}
    )


def test_the_newest_rows_of_a_unit_count_through_all_joins(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    expected = dict.fromkeys(range(0, 400, 2), 0.0)
    table = UnitTable(tmp_path, [write_segment(tmp_path, _rows(list(expected), 0.0))])
    most = 0
    for number in range(1, 60):
        changed = rng.choice(400, int(rng.integers(1, 20)), replace=False).tolist()
        table = table.with_rows(_rows(changed, float(number)))
        expected |= dict.fromkeys(changed, float(number))
        most = max(most, len(table.segments))
        asked = pl.Series(sorted(rng.choice(400, 30, replace=False).tolist()), dtype=pl.UInt64)
        found = dict(table.rows_of(asked).iter_rows())
        assert found == {unit: expected[unit] for unit in asked if unit in expected}
    assert 2 < most <= 10, "files are put together before they are many"
    assert dict(table.everything().iter_rows()) == expected


def test_units_with_several_rows_come_and_go_whole(tmp_path: Path) -> None:
    table = UnitTable(tmp_path, [write_segment(tmp_path, _rows([1, 5, 5, 5, 9], 1.0))])
    table = table.with_rows(_rows([5, 5], 2.0))
    assert table.rows_of(pl.Series([4, 5, 9], dtype=pl.UInt64)).rows() == [(5, 2.0), (5, 2.0), (9, 1.0)]
    assert table.rows_of(pl.Series([], dtype=pl.UInt64)).is_empty()


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    table = UnitTable(tmp_path, [write_segment(tmp_path, _rows([], 1.0))])
    assert table.rows_of(pl.Series([4], dtype=pl.UInt64)).is_empty()
    assert table.with_rows(_rows([4], 1.0)).everything().rows() == [(4, 1.0)]


@pytest.mark.parametrize("damage", ["gone", "cut", "zeros"])
def test_a_damaged_file_is_said_to_be(tmp_path: Path, damage: str) -> None:
    segment = write_segment(tmp_path, _rows([1, 2, 3], 1.0))
    path = tmp_path / segment.file
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-8] if damage == "cut" else bytes(segment.size))
    with pytest.raises(Damaged):
        UnitTable(tmp_path, [segment]).rows_of(pl.Series([1], dtype=pl.UInt64))
