"""The shape of ``servelens.yaml``: every key, its default, what it means, and what it must agree with.

Endpoints have the shape of Databricks Model Serving (``config.served_entities``, ``config.traffic_config.routes``,
``ai_gateway.inference_table_config``), so that a configuration can be carried over. :mod:`servelens.settings_file`
reads the file; ``docs/settings.md`` is generated from the descriptions here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from evaluators.drift.windows import Granularity
from experiments.definition_rules import refuse_overlaps
from experiments.experiment import Experiment
from servelens.alert_settings import AlertSettings, ChannelSettings, is_http
from servelens.drift_settings import DriftSettings
from servelens.endpoint_settings import EndpointSettings
from servelens.errors import Invalid
from servelens.evaluation_settings import EvaluationSettings, GroundTruthSettings, RaySettings
from servelens.experiment_settings import ExperimentSettings
from servelens.intake_settings import IntakeSettings
from servelens.relabel_settings import RelabelSettings
from servelens.scorer_settings import ScorerSettings
from servelens.section import Name, Positive, Section, refuse_duplicates


class ProxySettings(Section):
    """The data plane that apps point their client at."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on.")
    workers: int = Field(1, ge=1, le=256, description="Worker processes that share the port, one core each.")
    durability: Literal["process", "disk", "memory"] = Field(
        "process",
        description="When an answer's last byte may leave: after its record is written (`process`: survives the death of "
        "the proxy), after it is synced to disk (`disk`: survives power loss), or at once (`memory`: flushed within 50 ms).",
    )
    on_log_failure: Literal["pass", "reject"] = Field(
        "pass",
        description="When the spool is full or its disk fails: serve and count the dropped record (`pass`), or answer "
        "503 before forwarding (`reject`).",
    )
    max_body_bytes: int = Field(
        16 * 1024**2, ge=1024, description="Largest request body; a larger one is answered 413."
    )
    canonical_log: bool = Field(False, description="Write one log line per invocation.")
    drain_s: Positive = Field(
        30.0, description="Seconds that a stopping worker waits for invocations in flight."
    )
    rate_limit_url: SecretStr | None = Field(
        None,
        description="Redis that counts calls for the rate limits of several machines, as `redis://host:6379/0`. Default: "
        "each machine counts its own.",
    )


class SpoolSettings(Section):
    """The durable local log between the proxy and the tables."""

    directory: Path | None = Field(None, description="Folder of the spool. Default: `spool` in `data_dir`.")
    segment_bytes: int = Field(
        64 * 1024**2, ge=64 * 1024, description="A segment is closed when it is this large."
    )
    segment_age_s: Positive = Field(60.0, description="… or this old.")
    max_bytes: int = Field(
        8 * 1024**3,
        ge=1024**2,
        description="Largest size of one worker's spool; past it `on_log_failure` applies.",
    )
    min_free_bytes: int | None = Field(
        None,
        ge=0,
        description="With less than this free on the spool's file system no record is taken and `on_log_failure` applies, "
        "so that the rest of the machine can still write; 0 is never. Default: 256 MiB, or a twentieth of a file system "
        "under 5 GiB.",
    )


class TablesSettings(Section):
    """Where the Delta tables are."""

    root: str | None = Field(
        None,
        description="Folder or object-store address (`s3://`, `gs://`, `abfss://`) of the tables. Default: `tables` in "
        "`data_dir`.",
    )
    catalog: Name = Field("servelens", description="Default catalog of the tables.")
    schema_name: Name = Field("default", alias="schema", description="Default schema of the tables.")
    storage_options: dict[str, str] = Field(
        default_factory=dict,
        description="Options of the object store, as [delta-rs takes them](storage.md). Values may be `${NAME}`.",
    )


class DatabaseSettings(Section):
    """The SQL database: cases, labels, experiments and run history."""

    url: SecretStr | None = Field(
        None,
        description="SQLAlchemy address. Default: SQLite in `data_dir`. `SERVELENS_DATABASE_URL` overrides it.",
    )


class CollectorSettings(Section):
    """The process that moves records from the spool into the tables."""

    commit_interval_s: Positive = Field(1.0, le=60, description="Seconds between two commits of a table.")
    max_rows: int = Field(20_000, ge=1, description="Rows in one commit at the most.")
    host: str = Field("127.0.0.1", description="Address of its health checks and metrics.")
    port: int = Field(8051, ge=0, le=65535, description="Port of its health checks and metrics.")
    intake: IntakeSettings = Field(default_factory=IntakeSettings, description="Other ways in.")


class SchedulerSettings(Section):
    """The process that runs evaluators, drift, experiment analysis and case selection."""

    host: str = Field("127.0.0.1", description="Address of its health checks and metrics.")
    port: int = Field(8052, ge=0, le=65535, description="Port of its health checks and metrics.")


class MaintenanceSettings(Section):
    """Upkeep of the tables by the scheduler: compaction, retention, and the end of their history."""

    enabled: bool = Field(True, description="`false` when something else maintains the tables.")
    every_s: Positive = Field(300.0, description="Seconds between two runs.")
    compact_min_files: int = Field(
        16, ge=2, description="Small files in a day of a table from which on they are made into large ones."
    )
    target_file_bytes: int = Field(
        128 * 1024**2, ge=1024**2, description="How large; an eighth of it while the day lasts."
    )
    history_hours: int = Field(
        48,
        ge=1,
        description="For how long older versions of a table can be read, and the bytes of deleted rows stay on the disk.",
    )
    unrouted_retention_days: int | None = Field(
        None,
        ge=1,
        description="`retention_days` of calls that reached no endpoint. Default: they are kept.",
    )


class ConsoleSettings(Section):
    """The dashboard and its HTTP API."""

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8050, ge=0, le=65535, description="Port to listen on.")
    public_url: str | None = Field(
        None, description="Address at which people reach it, for links in notifications. Default: no links."
    )

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.public_url is not None and not is_http(self.public_url):
            raise ValueError("public_url: is no http or https address. Write https://….")
        return self


class Settings(Section):
    """The whole file."""

    data_dir: Path = Field(
        Path("servelens-data"),
        description="Folder of everything that has no place of its own. `SERVELENS_DATA_DIR` overrides it.",
    )
    models_dir: Path = Field(
        Path("~/.cache/servelens/models"),
        description="Folder of the prepared offline models. `SERVELENS_MODELS_DIR` overrides it.",
    )
    proxy: ProxySettings = Field(default_factory=ProxySettings, description="The data plane.")
    spool: SpoolSettings = Field(default_factory=SpoolSettings, description="The durable local log.")
    collector: CollectorSettings = Field(default_factory=CollectorSettings, description="Spool to tables.")
    scheduler: SchedulerSettings = Field(
        default_factory=SchedulerSettings, description="Evaluators, drift, experiments and case selection."
    )
    tables: TablesSettings = Field(default_factory=TablesSettings, description="The Delta tables.")
    maintenance: MaintenanceSettings = Field(
        default_factory=MaintenanceSettings, description="Upkeep of the Delta tables."
    )
    database: DatabaseSettings = Field(default_factory=DatabaseSettings, description="The SQL database.")
    console: ConsoleSettings = Field(default_factory=ConsoleSettings, description="The dashboard.")
    scorer: ScorerSettings = Field(
        default_factory=ScorerSettings, description="The service behind the `safety` guardrail."
    )
    endpoints: list[EndpointSettings] = Field(
        default_factory=list,
        description="What apps can call, beside the endpoints that are made by API. Drift, experiments, rules and label "
        "schemas name endpoints of this file; evaluations may name the others as well.",
    )
    evaluations: list[EvaluationSettings] = Field(default_factory=list, description="Scores on a schedule.")
    ground_truth: list[GroundTruthSettings] = Field(
        default_factory=list, description="Answers compared with the truth that arrives as feedback."
    )
    ray: RaySettings = Field(
        default_factory=RaySettings, description="The Ray cluster of evaluations with `engine: ray`."
    )
    drift: list[DriftSettings] = Field(default_factory=list, description="Drift on a schedule.")
    channels: list[ChannelSettings] = Field(
        default_factory=list, description="Who is told of alerts, and how."
    )
    alerts: list[AlertSettings] = Field(default_factory=list, description="What people are told of.")
    experiments: list[ExperimentSettings] = Field(default_factory=list, description="Comparisons.")
    experiments_every_s: Positive = Field(15.0, description="Seconds between two analyses of an experiment.")
    relabel: RelabelSettings = Field(default_factory=RelabelSettings, description="The relabeling queue.")

    @property
    def spool_directory(self) -> Path:
        """Folder of the spool: one folder in it for each proxy worker."""
        return self.spool.directory or self.data_dir / "spool"

    @property
    def dead_letter_directory(self) -> Path:
        """Folder of what could not become a row."""
        return self.data_dir / "dead-letter"

    @property
    def tables_root(self) -> str:
        """Folder or object-store address of the Delta tables."""
        return self.tables.root or str(self.data_dir / "tables")

    @property
    def experiments_dir(self) -> Path:
        """Folder of what looks at experiments have read, so that the next reads only what is new."""
        return self.data_dir / "experiments"

    @property
    def runs_scorer(self) -> bool:
        """Whether `servelens up` starts a scorer."""
        if self.scorer.enabled is not None:
            return self.scorer.enabled
        guarded = any(endpoint.ai_gateway.guardrails.ask_scorer for endpoint in self.endpoints)
        return guarded and self.scorer.url is None

    @property
    def reports_dir(self) -> Path:
        """Folder of the drift reports."""
        return self.data_dir / "reports"

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        refuse_duplicates([endpoint.name for endpoint in self.endpoints], "endpoints", "endpoint")
        refuse_duplicates([experiment.name for experiment in self.experiments], "experiments", "experiment")
        evaluations = [evaluation.build().name for evaluation in self.evaluations]
        refuse_duplicates(evaluations, "evaluations", "evaluation")
        entities = {
            endpoint.name: [entity.name for entity in endpoint.config.served_entities]
            for endpoint in self.endpoints
        }
        owners = [
            *((f"ground_truth[{index}]", item.endpoint) for index, item in enumerate(self.ground_truth)),
            *((f"drift[{index}]", item.endpoint) for index, item in enumerate(self.drift)),
            *((f"alerts[{index}]", item.endpoint) for index, item in enumerate(self.alerts)),
            *((f"experiments[{index}]", item.endpoint) for index, item in enumerate(self.experiments)),
            *((f"relabel.rules[{index}]", item.endpoint) for index, item in enumerate(self.relabel.rules)),
            *(
                (f"relabel.schemas[{index}]", item.endpoint)
                for index, item in enumerate(self.relabel.schemas)
            ),
            *((f"relabel.suppression.endpoints.{name}", name) for name in self.relabel.suppression.endpoints),
        ]
        for key, endpoint in owners:
            if endpoint not in entities:
                raise ValueError(
                    f"{key}.endpoint: there is no endpoint '{endpoint}'. Use one of: {', '.join(entities)}."
                )
        self._refuse_unknown_channels()
        self._refuse_uncomputed_drift()
        built: list[Experiment] = []
        for index, experiment in enumerate(self.experiments):
            for place, arm in experiment.arms.items():
                if arm.served_entity not in entities[experiment.endpoint]:
                    raise ValueError(
                        f"experiments[{index}].{place}.served_entity: endpoint '{experiment.endpoint}' has no served entity "
                        f"'{arm.served_entity}'. Use one of: {', '.join(entities[experiment.endpoint])}."
                    )
            if experiment.kind == "shadow":
                self._refuse_missing_shadow(index, experiment)
            try:
                built.append(experiment.build())
            except Invalid as error:
                raise ValueError(str(error.within(f"experiments[{index}]"))) from error
        try:
            refuse_overlaps(built)
        except Invalid as error:
            line = str(error)
            for index, each in enumerate(built):  # in the file, blocks are counted
                line = line.replace(f"experiments[{each.name}].", f"experiments[{index}].")
            raise ValueError(line) from error
        return self

    def _refuse_uncomputed_drift(self) -> None:
        computed = {(each.endpoint, Granularity.parse(each.granularity)) for each in self.drift}
        for index, alert in enumerate(self.alerts):
            if alert.drift is None:
                continue
            if (alert.endpoint, Granularity.parse(alert.drift.granularity)) not in computed:
                raise ValueError(
                    f"alerts[{index}].drift.granularity: '{alert.endpoint}' has no drift by {alert.drift.granularity}. "
                    "Add it to 'drift', or use one that is there."
                )

    def _refuse_unknown_channels(self) -> None:
        refuse_duplicates([alert.name for alert in self.alerts], "alerts", "alert")
        names = [channel.name for channel in self.channels]
        refuse_duplicates(names, "channels", "channel")
        for index, alert in enumerate(self.alerts):
            for name in alert.channels:
                if name not in names:
                    raise ValueError(
                        f"alerts[{index}].channels: there is no channel '{name}'. Use one of: {', '.join(names) or 'none'}."
                    )

    def _refuse_missing_shadow(self, index: int, experiment: ExperimentSettings) -> None:
        endpoint = next(one for one in self.endpoints if one.name == experiment.endpoint)
        shadows = [shadow.served_entity_name for shadow in endpoint.config.shadows]
        for place, arm in experiment.arms.items():
            if place != "control" and arm.served_entity not in shadows:
                raise ValueError(
                    f"experiments[{index}].{place}.served_entity: '{arm.served_entity}' is no shadow of '{endpoint.name}'. "
                    f"Add it to config.shadows (there are: {', '.join(shadows) or 'none'})."
                )
