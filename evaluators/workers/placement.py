"""Where an evaluation's evaluator runs: the one place that knows the engines."""

from __future__ import annotations

from pathlib import Path

from evaluators.runs.evaluation import LOCAL, Evaluation
from evaluators.workers.isolated import IsolatedEvaluator
from servelens.errors import Invalid


def evaluator_of(evaluation: Evaluation, models_dir: Path) -> IsolatedEvaluator:
    """The evaluator, not loaded yet; close it in the end."""
    if evaluation.engine == LOCAL:
        return IsolatedEvaluator(
            evaluation.spec,
            models_dir,
            devices=evaluation.devices,
            timeout_s=evaluation.timeout_s,
            start_timeout_s=evaluation.start_timeout_s,
        )
    raise Invalid(f"there is no engine '{evaluation.engine}'.", field="engine")
