"""The table of counts: keys whose places collide, room that runs out, and the file behind it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from servelens.errors import Unavailable
from serving_proxy.rate_limits.shared_table import SharedTable, TableFull, counts_path
from serving_proxy.rate_limits.window import Window, hash_of

NOW = 1_800_000_000_000_000
MINUTE = 60_000_000
JOINING = 100


@pytest.fixture
def table(tmp_path: Path) -> Iterator[SharedTable]:
    table = SharedTable.open(tmp_path / "counts", "proxy-0", entries=64)
    yield table
    table.close(NOW // 1_000_000)


def colliding(number: int) -> int:
    """Keys that all want the same place in a table of 64."""
    return 7 + (number << 6)


def test_keys_that_want_the_same_place_are_counted_apart(table: SharedTable, tmp_path: Path) -> None:
    other = SharedTable.open(tmp_path / "counts", "proxy-1", entries=64)
    keys = [colliding(number) for number in range(1, 21)]
    for number, key in enumerate(keys):
        Window(table, key).add(NOW, number + 1)
    for number, key in reversed(list(enumerate(keys))):  # in another order, so at other places
        Window(other, key).add(NOW, 100)
        assert Window(other, key).total(NOW) == number + 101
    assert [Window(table, key).total(NOW) for key in keys] == [number + 101 for number in range(20)]
    assert Window(table, colliding(99)).total(NOW) == 0
    other.close(NOW // 1_000_000)


def test_a_kept_window_notices_that_its_key_has_come_or_moved(table: SharedTable, tmp_path: Path) -> None:
    other = SharedTable.open(tmp_path / "counts", "proxy-1", entries=64)
    first, second = Window(table, colliding(1)), Window(table, colliding(2))
    assert second.total(NOW) == 0
    Window(other, colliding(1)).add(NOW, 5)
    Window(other, colliding(2)).add(NOW, 3)
    assert (first.total(NOW), second.total(NOW)) == (5, 3)
    late = NOW + 3 * MINUTE
    Window(other, colliding(2)).add(late, 4)
    Window(other, colliding(3)).add(late, 9)  # takes the place of the first, which is out of date
    assert (first.total(late), second.total(late)) == (0, 4)
    other.close(NOW // 1_000_000)


def test_a_full_table_says_so_and_recovers(table: SharedTable) -> None:
    windows = [Window(table, colliding(number)) for number in range(1, 34)]
    for window in windows[:32]:
        window.add(NOW, 1)
    with pytest.raises(TableFull):
        windows[32].add(NOW, 1)
    assert windows[32].total(NOW) == 0
    assert [window.total(NOW) for window in windows[:32]] == [1] * 32
    windows[32].add(NOW + 2 * MINUTE, 1)
    assert windows[32].total(NOW + 2 * MINUTE) == 1


def test_a_count_does_not_run_over(table: SharedTable) -> None:
    window = Window(table, 5)
    for _ in range(3):
        window.add(NOW, 3_000_000_000)
    assert window.total(NOW) == 2**32 - 1
    window.add(NOW + 1_000_000, 7)
    assert window.total(NOW + 1_000_000) == 2**32 + 6


def test_the_last_one_to_leave_removes_a_file_that_is_out_of_date(tmp_path: Path) -> None:
    path = tmp_path / "counts"
    first, second = (SharedTable.open(path, slot, entries=64) for slot in ("proxy-0", "proxy-1"))
    Window(first, 5).add(NOW, 1)
    first.close(NOW // 1_000_000)
    second.close(NOW // 1_000_000 + 1)
    assert path.exists()
    again = SharedTable.open(path, "proxy-1", entries=64)
    assert Window(again, 5).total(NOW) == 1
    again.close(NOW // 1_000_000 + 120)
    assert not path.exists()


def test_workers_that_join_while_others_count(table: SharedTable, tmp_path: Path) -> None:
    program = f"""
from pathlib import Path
from serving_proxy.rate_limits.shared_table import SharedTable
from serving_proxy.rate_limits.window import Window
for number in range(1, {JOINING + 1}):
    joined = SharedTable.open(Path({str(tmp_path / "counts")!r}), f"proxy-{{number}}", entries=64)
    Window(joined, 5).add({NOW}, 1)
"""
    window = Window(table, 5)
    seen = [0]
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        while process.poll() is None:
            seen.append(window.total(NOW))
    assert process.returncode == 0
    assert window.total(NOW) == JOINING
    assert seen == sorted(seen)


@pytest.mark.parametrize("first_leaves_first", [True, False])
def test_a_worker_leaves_alone_a_file_that_is_not_its_own(tmp_path: Path, first_leaves_first: bool) -> None:
    path, late = tmp_path / "counts", NOW // 1_000_000 + 120
    first = SharedTable.open(path, "proxy-0", entries=64)
    path.unlink()
    second = SharedTable.open(path, "proxy-1", entries=64)
    Window(first, 5).add(NOW, 1)
    assert Window(second, 5).total(NOW) == 0
    leaving, staying = (first, second) if first_leaves_first else (second, first)
    leaving.close(late)
    assert path.exists() == first_leaves_first
    staying.close(late)


@pytest.mark.parametrize("content", [b"x" * 100_000, b"\0" * 10_000])
def test_a_file_of_something_else_is_not_written_over(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "counts"
    path.write_bytes(content)
    with pytest.raises(Unavailable, match="made it"):
        SharedTable.open(path, "proxy-0")
    assert path.read_bytes()[:10_000] == content[:10_000]


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"")
    (tmp_path / "counts").symlink_to(tmp_path / "target")
    with pytest.raises(Unavailable):
        SharedTable.open(tmp_path / "counts", "proxy-0")
    assert (tmp_path / "target").read_bytes() == b""


def test_a_file_for_each_spool(tmp_path: Path) -> None:
    one, two = counts_path(tmp_path / "one"), counts_path(tmp_path / "two")
    assert one != two
    assert one == counts_path(tmp_path / "two" / ".." / "one")


def test_hashes_are_never_the_mark_of_a_free_entry() -> None:
    assert all(hash_of(f"key {number}") > 0 for number in range(1000))
