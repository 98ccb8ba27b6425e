from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from collector.catalog import PAYLOAD_SCHEMA
from dashboard.console import Console
from dashboard.queries import ReadCache, TableReader, failed_expression
from dashboard.services import ConsoleServices
from servelens.clock import ManualClock
from servelens.errors import Unavailable
from tests.browser.filled_system import build, record
from tests.unit.dashboard.conftest import NOW


def test_many_askers_cost_one_read() -> None:
    cache, computed, go = ReadCache(), [], threading.Event()

    def compute() -> int:
        go.wait(10)
        computed.append(1)
        return 7

    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(cache.get, "key", compute) for _ in range(8)]
        go.set()
        assert {answer.result(10) for answer in answers} == {7}
    assert computed == [1]


def test_failure_is_raised_and_not_remembered() -> None:
    cache = ReadCache()

    def fail() -> int:
        raise Unavailable("the table is gone")

    with pytest.raises(Unavailable):
        cache.get("key", fail)
    assert cache.get("key", lambda: 1) == 1


def test_least_recently_used_is_forgotten() -> None:
    cache = ReadCache(size=2)
    for key in ("a", "b", "a", "c"):
        cache.get(key, lambda value=key: value)
    assert cache.get("a", lambda: "again") == "a"
    assert cache.get("b", lambda: "again") == "again"


def test_result_is_read_again_only_for_a_new_version(tmp_path: Path) -> None:
    clock = ManualClock(NOW)
    services = build(tmp_path / "data", clock, records=0)
    table = services.catalog.tables("summaries").payload
    reader = TableReader(clock)

    def count() -> int:
        return int(table.scan().select(pl.len()).collect().item())

    def append(place: int) -> None:
        row = record(NOW - timedelta(minutes=1), place, endpoint="summaries", seed=place)
        table.append(pa.Table.from_pylist([row], schema=PAYLOAD_SCHEMA))

    assert reader.read([table], "rows", count) == 0
    append(1)
    assert reader.read([table], "rows", count) == 0, "a version is looked up once a second"
    clock.advance(1.1)
    assert reader.read([table], "rows", count) == 1
    clock.advance(1.1)
    misses = reader.cache.misses
    assert reader.read([table], "rows", count) == 1
    assert reader.cache.misses == misses
    services.database.dispose()


@pytest.mark.parametrize("broken", [b"no", b"not parquet at all, but long enough " * 100])
def test_broken_table_is_an_error_that_names_it(tmp_path: Path, broken: bytes) -> None:
    services = build(tmp_path / "data", ManualClock(NOW), records=60)
    table = services.catalog.tables("support-chat").payload
    for file in Path(table.uri).rglob("*.parquet"):
        file.write_bytes(broken)
    view = Console(services).view({"endpoint": "support-chat", "range": "7d"})
    with pytest.raises(Unavailable) as caught:
        Console(services).traffic.traffic(view)
    assert table.uri in str(caught.value)
    services.database.dispose()


def test_failure_is_an_error_status_or_an_error_after_a_good_one() -> None:
    frame = pl.DataFrame(
        {
            "status_code": [200, 200, 500, 499, 200, None],
            "error_type": [
                None,
                "upstream_reset",
                None,
                "client_disconnected",
                "client_disconnected",
                "internal",
            ],
        },
        schema={"status_code": pl.Int32, "error_type": pl.String},
    )
    assert frame.select(failed_expression()).to_series().to_list() == [False, True, True, False, False, True]


def test_arms_are_variants_then_other_entities(services: ConsoleServices) -> None:
    assert services.arms("support-chat") == ("champion", "challenger")
    assert services.arms("summaries") == ("llama-small-t05",)
    assert services.arms("nope") == ()
