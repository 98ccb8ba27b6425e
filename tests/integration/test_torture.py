"""A minute of ``python -m tests.torture``: kills, full disks, lost storage, stepped clocks, damage; every record counted."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest

from tests.torture.run import torture

FAULTS_S = 50.0


@pytest.mark.timeout(300)
def test_every_record_is_accounted_for_whatever_happens(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    figures = torture(tmp_path, FAULTS_S, seed, lambda line: print(line, file=sys.stderr))  # noqa: T201
    print(json.dumps(figures))  # noqa: T201 - shown when the test fails
    assert figures["problems"] == []
    assert figures["verify_status"] == 0
    assert figures["answered"] > 500
    assert {"worker killed", "collector killed", "disk full", "storage away", "clock stepped"} <= set(
        figures["faults"]
    )
    assert figures["faults"].get("flip", 0) + figures["faults"].get("truncate", 0) >= 1
