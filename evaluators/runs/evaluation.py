"""What an evaluation is: which evaluator looks at which endpoint's records, when, at how many of them, and where it runs.

Plain data: from the settings file or the API, kept in the database as JSON, and the same on every machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from evaluators.ray_cluster.placement import Actors, RayCluster
from evaluators.registry import EvaluatorSpec, known_evaluators
from evaluators.runs.cron import Cron
from evaluators.runs.sampling import Sampling
from servelens.errors import Invalid

LOCAL: Final = "local"
RAY: Final = "ray"
ENGINES: Final = (LOCAL, RAY)
EVERY_S: Final = 30.0
GROUND_TRUTH: Final = "ground_truth"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One evaluator on one endpoint's records: every ``every_s`` seconds, or at the times of ``cron`` (five fields, UTC);
    exactly one of them.

    ``max_rows_per_run``: a run ends with the batch that reaches it, and the next goes on. ``devices``: one worker for
    each; ``threads``: what each computes with on the CPU. ``timeout_s``: how long the evaluator may take for one text.
    ``scores_as``: the name of its scores, in place of the evaluator's.
    ``ray``: what it has otherwise of the cluster than others (:class:`~evaluators.ray_cluster.placement.Actors`).
    """

    name: str
    endpoint: str
    spec: EvaluatorSpec
    every_s: float | None = EVERY_S
    cron: str | None = None
    sampling: Sampling = field(default_factory=Sampling)
    max_rows_per_run: int | None = None
    timeout_s: float = 60.0
    start_timeout_s: float = 300.0
    devices: tuple[str, ...] = ()
    threads: int | None = None
    engine: str = LOCAL
    ray: Mapping[str, Any] = field(default_factory=dict)
    scores_as: str | None = None

    def __post_init__(self) -> None:
        if self.name == "runs":
            raise Invalid("'runs' is an address of the API.", field="name", fix="Choose another.")
        if (self.every_s is None) == (self.cron is None):
            raise Invalid("give either 'every_s' or 'cron'.", field="every_s")
        if self.cron is not None:
            Cron.parse(self.cron)
        if self.engine not in ENGINES:
            raise Invalid(
                f"there is no engine '{self.engine}'.", field="engine", fix=f"Use {' or '.join(ENGINES)}."
            )
        if self.ray and self.engine != RAY:
            raise Invalid(
                "is for the engine 'ray' only.", field="ray", fix="Say engine: ray, or leave it out."
            )
        self.actors_on(RayCluster())
        if self.devices and "device" in self.spec.options:
            raise Invalid("is given beside 'options.device'.", field="devices", fix="Leave one of them out.")

    def actors_on(self, cluster: RayCluster) -> Actors:
        """What it asks of ``cluster``. Raises :class:`~servelens.errors.Invalid`."""
        try:
            return replace(cluster.actors, **self.ray)
        except TypeError as error:
            raise Invalid(str(error), field="ray", fix="It has actors, num_cpus and num_gpus.") from error

    def check_evaluator(self) -> None:
        """Raise :class:`~servelens.errors.Invalid` when no evaluator of that name is installed here. Not asked by every
        process: only those that score need the package.
        """
        if self.spec.name not in known_evaluators():
            raise Invalid(
                f"there is no evaluator '{self.spec.name}'.",
                field="evaluator",
                fix=f"Use one of: {', '.join(known_evaluators())}.",
            )
        if self.scores_as not in (None, self.spec.name) and self.scores_as in {
            *known_evaluators(),
            GROUND_TRUTH,
        }:
            raise Invalid(
                f"'{self.scores_as}' is the name of another evaluator.",
                field="scores_as",
                fix="Choose a name that no evaluator has.",
            )

    @property
    def score_name(self) -> str:
        """The name of its scores, as far as that is known before it is loaded."""
        own = self.spec.options.get("name")
        if self.scores_as is not None:
            return self.scores_as
        return own if isinstance(own, str) and own.startswith(self.spec.name) else self.spec.name

    @property
    def expected_target(self) -> str:
        """The side it scores, as far as that is known before it is loaded."""
        return str(self.spec.options.get("target", "response"))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, with everything."""
        return {
            "name": self.name,
            "endpoint": self.endpoint,
            "evaluator": self.spec.name,
            "options": dict(self.spec.options),
            "every_s": self.every_s,
            "cron": self.cron,
            "sampling": self.sampling.to_dict(),
            "max_rows_per_run": self.max_rows_per_run,
            "timeout_s": self.timeout_s,
            "start_timeout_s": self.start_timeout_s,
            "devices": list(self.devices),
            "threads": self.threads,
            "engine": self.engine,
            "ray": dict(self.ray),
            "scores_as": self.scores_as,
        }

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Evaluation:
        """What :meth:`to_dict` gave."""
        return cls(
            name=stored["name"],
            endpoint=stored["endpoint"],
            spec=EvaluatorSpec(stored["evaluator"], stored["options"]),
            every_s=stored["every_s"],
            cron=stored["cron"],
            sampling=Sampling.from_dict(stored["sampling"]),
            max_rows_per_run=stored["max_rows_per_run"],
            timeout_s=stored["timeout_s"],
            start_timeout_s=stored["start_timeout_s"],
            devices=tuple(stored["devices"]),
            threads=stored["threads"],
            engine=stored["engine"],
            ray=stored.get("ray", {}),
            scores_as=stored.get("scores_as"),
        )
