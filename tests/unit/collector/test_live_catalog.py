"""Endpoints that come while a collector runs: their records get their own table, or wait for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from collector.catalog import UNROUTED, Catalog, TableName
from collector.ingest import Collector
from servelens.errors import Invalid, Missing, Unavailable
from tests.unit.collector.test_ingest import Place, record


@dataclass
class Names:
    """What a database says; ``away`` while it cannot."""

    known: dict[str, TableName] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    def __call__(self) -> Mapping[str, TableName] | None:
        self.asked += 1
        if self.away:
            raise Unavailable("the database did not answer")
        return self.known


def test_an_endpoint_that_is_created_later_gets_its_own_table(tmp_path: Path) -> None:
    names = Names()
    catalog = Catalog(str(tmp_path), {}, more=names)
    with pytest.raises(Missing):
        catalog.tables("made")
    names.known["made"] = TableName("main", "serving", "made")
    assert catalog.tables("made").payload.uri == f"{tmp_path}/main/serving/made_payload"
    assert catalog.endpoints == ("made",)
    asked = names.asked
    catalog.tables("made")
    assert names.asked == asked


def test_what_is_known_is_known_while_the_database_is_away(tmp_path: Path) -> None:
    names = Names({"chat": TableName("main", "serving", "chat")})
    catalog = Catalog(str(tmp_path), {}, more=names)
    catalog.tables("chat")
    names.away = True
    assert catalog.tables("chat").payload.uri.endswith("/chat_payload")
    assert catalog.tables(UNROUTED).payload.uri.endswith("/unrouted_payload")
    with pytest.raises(Unavailable):
        catalog.tables("other")


def test_a_table_is_never_shared_nor_moved(tmp_path: Path) -> None:
    name = TableName("main", "serving", "chat")
    names = Names({"chat": name})
    catalog = Catalog(str(tmp_path), {}, more=names)
    table = catalog.tables("chat")
    names.known = {"chat": TableName("main", "serving", "moved"), "thief": name}
    with pytest.raises(Invalid, match="endpoint 'chat' as well"):
        catalog.tables("thief")
    assert catalog.tables("chat") is table


class LivePlace(Place):
    """A place whose catalog follows ``names``."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.names = Names({"chat": TableName("main", "serving", "chat")})

    def catalog(self) -> Catalog:
        return Catalog(str(self.lake), {}, more=self.names)

    def step(self, collector: Collector, until: int) -> None:
        """Collect until so many records are in tables."""
        for _ in range(2_000):
            if collector.status.in_table >= until:
                return
            collector.step()
            collector._wait()
        raise AssertionError(f"not within 100 s: {collector.status}")


@pytest.fixture
def live(tmp_path: Path) -> LivePlace:
    return LivePlace(tmp_path)


def test_records_of_an_endpoint_created_while_collecting_are_in_its_table(live: LivePlace) -> None:
    collector = live.collector(commit_interval_s=0.05)
    live.spool([record("a")], "proxy-0")
    live.step(collector, 1)
    live.names.known["made"] = TableName("main", "serving", "made")
    live.spool([record("b", "made"), record("c", "never"), record("d")], "proxy-1")
    live.step(collector, 4)
    collector.close()
    assert live.ids("made") == ["b"]
    assert live.ids("chat") == ["a", "d"]
    assert live.ids(UNROUTED) == ["c"]


def test_while_nobody_can_say_whose_a_record_is_the_spool_waits_and_nothing_is_doubled(
    live: LivePlace,
) -> None:
    live.names.away = True
    live.spool([record("a"), record("b", "made"), record("c")])
    collector = live.collector(commit_interval_s=0.05)
    for _ in range(30):
        collector.step()
    assert collector.status.in_table == 0
    live.names.away = False
    live.names.known["made"] = TableName("main", "serving", "made")
    live.step(collector, 3)
    assert collector.drain()
    collector.close()
    assert live.ids("chat") == ["a", "c"]
    assert live.ids("made") == ["b"]


def test_an_endpoint_that_is_deleted_keeps_its_table_for_what_is_still_in_the_spool(live: LivePlace) -> None:
    live.names.known["gone"] = TableName("main", "serving", "gone")
    live.spool([record("a", "gone")])
    live.drain()
    assert live.ids("gone") == ["a"]
