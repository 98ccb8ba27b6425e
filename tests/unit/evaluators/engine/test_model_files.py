from __future__ import annotations

import os
import time
from pathlib import Path

from evaluators.engine.model_files import files_version


def test_a_version_changes_with_any_byte_name_or_code(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    weights = tmp_path / "deep/weights"
    weights.write_bytes(b"abc")
    first = files_version(tmp_path, "1")
    assert files_version(tmp_path, "1") == first
    assert files_version(tmp_path, "2") != first
    weights.write_bytes(b"abd")
    second = files_version(tmp_path, "1")
    assert second != first
    weights.rename(tmp_path / "deep/other")
    assert files_version(tmp_path, "1") not in (first, second)


def test_a_file_put_in_the_place_of_another_is_read_again(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.write_bytes(b"abc")
    first = files_version(tmp_path, "1")
    about = weights.stat()
    other = tmp_path.parent / f"{tmp_path.name}-other"
    other.write_bytes(b"xyz")
    os.utime(other, ns=(about.st_atime_ns, about.st_mtime_ns))
    other.replace(weights)
    assert files_version(tmp_path, "1") != first, "same size and time, another file"


def test_a_big_file_is_read_once(tmp_path: Path) -> None:
    with (tmp_path / "weights").open("wb") as file:
        file.truncate(200_000_000)
    started = time.process_time()
    first = files_version(tmp_path, "1")
    between = time.process_time()
    assert files_version(tmp_path, "1") == first
    assert time.process_time() - between < (between - started) / 5
