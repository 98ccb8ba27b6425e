"""A judge's server, and judges that ask it without waiting long between retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluators.judge.build import build
from evaluators.judge.judge import Judge
from tests.unit.evaluators.judge.judge_server import JudgeServer, judge_server


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with judge_server() as running:
        yield running


@pytest.fixture
def judge_for(server: JudgeServer, tmp_path: Path) -> Callable[..., Judge]:
    def judge_with(**options: Any) -> Judge:
        defaults = {
            "url": server.url,
            "model": "grader",
            "rubric": "Is the answer right?",
            "backoff_s": 0.001,
        }
        return build(models_dir=tmp_path, **(defaults | options))

    return judge_with
