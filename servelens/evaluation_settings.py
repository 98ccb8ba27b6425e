"""The settings of evaluations: which evaluator looks at which endpoint's records, when, and where it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from evaluators.ground_truth.options import read_options
from evaluators.ray_cluster.placement import Actors, RayCluster
from evaluators.registry import EvaluatorSpec
from evaluators.runs.evaluation import EVERY_S, Evaluation
from evaluators.runs.sampling import Sampling
from servelens.errors import Invalid
from servelens.section import Name, Positive, Section

Interval = Annotated[float, Field(ge=0.1, le=31_536_000)]


class SamplingSettings(Section):
    """How many records are scored: by default all."""

    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of the records, chosen by a hash of their id: the same ones for all evaluators.",
    )
    quota: int | None = Field(
        None, ge=1, description="Of these at most so many per variant and window of `per`, the first ones."
    )
    per: str = Field(
        "1 hour",
        pattern=r"^[1-9][0-9]{0,3} (minute|hour|day)s?$",
        description="Length of the quota's window of `request_time`: `10 minutes`, `1 hour`, `1 day`.",
    )


class ActorsSettings(Section):
    """What one evaluation has of the Ray cluster, where that is not what `ray` says."""

    actors: int | None = Field(None, ge=1, description="Actors, each with a model of its own.")
    num_cpus: float | None = Field(None, ge=0, description="CPUs of each actor.")
    num_gpus: float | None = Field(None, ge=0, description="GPUs of each actor, or a fraction of one.")


class RaySettings(Section):
    """The Ray cluster that evaluations with `engine: ray` run on (docs/ray.md)."""

    address: str = Field(
        "auto", description="`host:6379` of the head, or `auto`: the cluster that this machine has joined."
    )
    namespace: str = Field("servelens", min_length=1, description="Ray's namespace.")
    actors: int = Field(1, ge=1, description="Actors of each evaluation, each with a model of its own.")
    num_cpus: float = Field(1.0, ge=0, description="CPUs of each actor.")
    num_gpus: float = Field(
        0.0, ge=0, description="GPUs of each actor, or a fraction of one: 0.5 puts two actors on a GPU."
    )
    models_dir: Path | None = Field(
        None, description="Folder of the prepared models on the nodes. Default: `models_dir`."
    )
    read_on_nodes: bool = Field(
        True, description="The nodes read the tables themselves; else the scheduler sends them the texts."
    )
    placement_timeout_s: Positive = Field(
        120.0, description="Seconds that the cluster has to make room for an evaluation's actors."
    )
    runtime_env: dict[str, Any] = Field(
        default_factory=dict, description="Ray's runtime environment of the actors; empty: as the nodes are."
    )

    @model_validator(mode="after")
    def _builds(self) -> Self:
        try:
            self.build()
        except Invalid as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> RayCluster:
        """As the scheduler has it. Raises :class:`~servelens.errors.Invalid`."""
        return RayCluster(
            address=self.address,
            namespace=self.namespace,
            models_dir=self.models_dir,
            read_on_nodes=self.read_on_nodes,
            placement_timeout_s=self.placement_timeout_s,
            runtime_env=self.runtime_env,
            actors=Actors(self.actors, self.num_cpus, self.num_gpus),
        )


class EvaluationSettings(Section):
    """One evaluator on one endpoint's records."""

    name: Name | None = Field(
        None,
        description="Its own name. Default: endpoint, evaluator (or `scores_as`) and target with `-` between.",
    )
    endpoint: str = Field(description="Name of the endpoint, of this file or made by API.")
    evaluator: str = Field(
        description="One of the [built-in ones](evaluators.md), or one that an installed package adds."
    )
    scores_as: Name | None = Field(
        None,
        description="Name of its scores. Default: the evaluator's. With names of their own an endpoint can have several "
        "evaluations of one evaluator, such as two patterns.",
    )
    every_s: Interval | None = Field(
        None, description="Seconds between two runs. Default without `cron`: 30."
    )
    cron: str | None = Field(
        None, description="In place of `every_s`: five fields of cron in UTC, as `*/5 * * * *`."
    )
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of the evaluator, for example `target: request`."
    )
    sampling: SamplingSettings = Field(
        default_factory=SamplingSettings, description="Which records are scored."
    )
    max_rows_per_run: int | None = Field(
        None,
        ge=1,
        description="A run ends with the batch that reaches it; the next goes on. Default: no limit.",
    )
    timeout_s: Positive = Field(
        60.0,
        description="Seconds that the evaluator may take for one text before it is unscored as `timed_out`.",
    )
    start_timeout_s: Positive = Field(300.0, description="Seconds that loading the model may take.")
    devices: list[str] = Field(
        default_factory=list,
        description="Devices with one worker each, as `[cuda:0, cuda:1]`. Default: one worker, which chooses.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads of each worker. Default: the workers share half of the cores, on Ray `num_cpus`.",
    )
    engine: Literal["local", "ray"] = Field(
        "local",
        description="Where it runs: `local` is in processes of the scheduler, `ray` on the cluster of `ray`.",
    )
    ray: ActorsSettings | None = Field(
        None,
        description="With `engine: ray`: what it has otherwise of the cluster than the section `ray` says.",
    )

    @model_validator(mode="after")
    def _builds(self) -> Self:
        try:
            self.build()
        except Invalid as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> Evaluation:
        """As the scheduler has it. Raises :class:`~servelens.errors.Invalid`."""
        if self.every_s is not None and self.cron is not None:
            raise Invalid("there is 'cron' as well.", field="every_s", fix="Leave one of them out.")
        every_s = self.every_s if self.every_s is not None or self.cron is not None else EVERY_S
        target = self.options.get("target")
        parts = [self.endpoint, self.scores_as or self.evaluator, *([str(target)] if target else [])]
        return Evaluation(
            name=self.name or "-".join(parts),
            endpoint=self.endpoint,
            spec=EvaluatorSpec(self.evaluator, self.options),
            every_s=every_s,
            cron=self.cron,
            sampling=Sampling(self.sampling.fraction, self.sampling.quota, self.sampling.per),
            max_rows_per_run=self.max_rows_per_run,
            timeout_s=self.timeout_s,
            start_timeout_s=self.start_timeout_s,
            devices=tuple(self.devices),
            threads=self.threads,
            engine=self.engine,
            scores_as=self.scores_as,
            ray={} if self.ray is None else self.ray.model_dump(exclude_none=True),
        )


class GroundTruthSettings(Section):
    """Answers compared with the truth that arrives as feedback, on one endpoint."""

    endpoint: str = Field(description="Name of the endpoint.")
    every_s: Interval = Field(EVERY_S, description="Seconds between two runs.")
    granularity: str = Field(
        "1 day",
        pattern=r"^[1-9][0-9]{0,3} (minute|hour|day|week|month|year)s?$",
        description="Length of the windows whose accuracy, F1 or error go into the profile table.",
    )
    lag_s: float = Field(
        86_400.0,
        ge=0,
        description="Seconds after its end before a window is looked at, since truth comes late.",
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="How answer and truth are compared, see [ground truth](ground-truth.md).",
    )

    @model_validator(mode="after")
    def _reads(self) -> Self:
        try:
            read_options(self.options)
        except Invalid as error:
            raise ValueError(str(error)) from error
        return self
