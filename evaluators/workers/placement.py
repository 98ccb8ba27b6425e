"""Where an evaluation's evaluator runs: the one place that knows the engines."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from evaluators.evaluator import Evaluator
from evaluators.ray_cluster.evaluator import RayEvaluator
from evaluators.ray_cluster.placement import RayCluster
from evaluators.runs.evaluation import LOCAL, RAY, Evaluation
from evaluators.workers.about import About
from evaluators.workers.isolated import IsolatedEvaluator
from servelens.errors import Invalid


class PlacedEvaluator(Evaluator, Protocol):
    """An evaluator that is loaded when it is first needed, wherever it runs."""

    @property
    def about(self) -> About:
        """What it says of itself. Raises what loading raises."""
        ...

    def abort(self) -> None:
        """End a call of another thread at once; that call and all later ones raise."""
        ...

    def close(self) -> None:
        """End what was started for it. The next call starts it anew."""
        ...


def evaluator_of(
    evaluation: Evaluation, models_dir: Path, cluster: RayCluster | None = None
) -> PlacedEvaluator:
    """The evaluator, not loaded yet; close it in the end. ``cluster``: where ``engine: ray`` is."""
    if evaluation.engine == LOCAL:
        return IsolatedEvaluator(
            evaluation.spec,
            models_dir,
            devices=evaluation.devices,
            threads=evaluation.threads,
            timeout_s=evaluation.timeout_s,
            start_timeout_s=evaluation.start_timeout_s,
            scores_as=evaluation.scores_as,
        )
    if evaluation.engine == RAY:
        cluster = cluster or RayCluster()
        return RayEvaluator(
            evaluation.spec,
            models_dir,
            cluster,
            actors=evaluation.actors_on(cluster),
            devices=evaluation.devices,
            threads=evaluation.threads,
            timeout_s=evaluation.timeout_s,
            start_timeout_s=evaluation.start_timeout_s,
            scores_as=evaluation.scores_as,
        )
    raise Invalid(f"there is no engine '{evaluation.engine}'.", field="engine")
