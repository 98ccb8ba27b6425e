"""The misbehaving evaluator in worker processes that are gone after the test."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluators.registry import EvaluatorSpec
from evaluators.workers.isolated import IsolatedEvaluator
from tests.unit.evaluators.workers import misbehaving

Isolate = Callable[..., IsolatedEvaluator]


@pytest.fixture
def isolate(tmp_path: Path) -> Iterator[Isolate]:
    before = list(sys.path)
    misbehaving.install(tmp_path / "site")
    made: list[IsolatedEvaluator] = []

    def make(*, devices: tuple[str, ...] = (), timeout_s: float = 20.0, **options: Any) -> IsolatedEvaluator:
        start_timeout_s = options.pop("start_timeout_s", 60.0)
        lost_in_a_row = options.pop("lost_in_a_row", 10)
        made.append(
            IsolatedEvaluator(
                EvaluatorSpec("misbehaving", options),
                tmp_path,
                devices=devices,
                timeout_s=timeout_s,
                start_timeout_s=start_timeout_s,
                lost_in_a_row=lost_in_a_row,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()
    sys.path[:] = before
