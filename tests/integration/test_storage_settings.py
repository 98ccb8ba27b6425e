"""What is wrong with the tables' storage is said in one line, when the collector starts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.system import free_port


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"root": "az://container/lake"}, "tables.storage_options: "),
        ({"root": "uc://main"}, "tables.root: "),
    ],
)
def test_a_wrong_storage_ends_the_collector_with_one_line(
    tables: dict[str, Any], said: str, tmp_path: Path
) -> None:
    config = tmp_path / "servelens.yaml"
    settings = {"data_dir": "data", "tables": tables, "collector": {"port": free_port()}}
    config.write_text(yaml.safe_dump(settings))
    ended = subprocess.run(
        [sys.executable, "-m", "servelens", "collector", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 2, ended.stderr
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith(f"servelens: {said}"), ended.stderr
    assert "Traceback" not in ended.stderr
