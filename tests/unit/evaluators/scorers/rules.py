"""What the tests of rules share: an evaluator by its name and options, as settings give them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from evaluators.evaluator import Evaluator, Score, Text
from evaluators.registry import EvaluatorSpec, build
from servelens.errors import Invalid


def rule(name: str, **options: Any) -> Evaluator:
    return build(EvaluatorSpec(name, options), Path("/nowhere"))


def one(evaluator: Evaluator, response: str | None, prompt: str | None = None, /, **columns: Any) -> Score:
    (score,) = evaluator.score([Text(prompt, response, columns)])
    return score


def refused(name: str, message: str, **options: Any) -> None:
    with pytest.raises(Invalid, match=message) as caught:
        rule(name, **options)
    assert caught.value.field == f"evaluators[{name}]"
