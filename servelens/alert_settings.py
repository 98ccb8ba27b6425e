"""The settings of alerts: the rules, and the channels by which people are told."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import AwareDatetime, BeforeValidator, Field, SecretStr, model_validator

from evaluators.alerts.rule import (
    Aggregate,
    AggregateKind,
    AlertRule,
    Anomaly,
    Change,
    Condition,
    Direction,
    DriftMeasure,
    DriftStatistic,
    FeedbackMeasure,
    LagMeasure,
    Measure,
    NoData,
    ScoreMeasure,
    Severity,
    Threshold,
    TrafficMeasure,
    TrafficMetric,
)
from evaluators.drift.windows import Granularity
from servelens.errors import Invalid
from servelens.section import Name, Positive, Section

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_ADDRESS: Final = re.compile(r"[^@\s<>,;]+@[^@\s<>,;]+")
_DEFAULT_WINDOW_S: Final = 600.0
_DRIFT_WINDOWS: Final = 3
_ANY_MOMENT: Final = datetime(2026, 1, 1, tzinfo=UTC)
_COMPARED_SAMPLES: Final = 30


def seconds(value: Any) -> Any:
    """``10m`` as seconds; a number stays as it is.

    >>> seconds("10m"), seconds("1.5h"), seconds(30)
    (600.0, 5400.0, 30)
    """
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is no duration; write 30s, 10m, 1h, 7d or 2w")
    return float(match[1]) * _UNITS[match[2]]


Duration = Annotated[float, BeforeValidator(seconds), Field(ge=0, le=32_000_000, allow_inf_nan=False)]


class DriftAlertSettings(Section):
    """A statistic of the newest drift window."""

    column: str | None = Field(
        None, description="Name of the column. Default: any, the largest value of all."
    )
    statistic: DriftStatistic = Field(
        "drifted_columns",
        description="`drifted_columns`: how many drifted, corrected for their number (with `above: 0`: any); or the "
        "statistic itself.",
    )
    granularity: str = Field(
        "1 hour",
        pattern=r"^[1-9][0-9]{0,3} (minute|hour|day|week|month|year)s?$",
        description="As in `drift`; that drift must be computed.",
    )
    against: Literal["previous", "baseline"] = Field("previous", description="Which comparison is meant.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Significance of `drifted_columns`.")


class ChangeSettings(Section):
    """A difference from a reference that chance does not explain."""

    against: Literal["previous", "trailing", "baseline"] = Field(
        "previous",
        description="The window before; the `windows` before it together; or a fixed time.",
    )
    relative: float | None = Field(None, ge=0, description="Margin as a share of the reference: 0.2 is 20 %.")
    absolute: float | None = Field(None, ge=0, description="… or in the unit of the measure.")
    direction: Direction = Field("up", description="Which way is worth an alert.")
    windows: int = Field(4, ge=1, le=100, description="Of `trailing`.")
    baseline_start: AwareDatetime | None = Field(None, description="Start of `baseline`, with a zone.")
    baseline_end: AwareDatetime | None = Field(None, description="Its end.")
    alpha: float = Field(
        0.001, gt=0, lt=0.5, description="Chance at each look to be wrong about a change of just the margin."
    )


class AnomalySettings(Section):
    """A value that is unusual for this time of the week."""

    direction: Direction = Field("both", description="Which way is worth an alert.")
    threshold: float = Field(5.0, ge=1, le=100, description="Robust standard deviations from the median.")
    weeks: int = Field(6, ge=2, le=52, description="How many past weeks to look at.")
    min_weeks: int = Field(3, ge=2, le=52, description="With fewer of them it is insufficient data.")
    neighbours: int = Field(1, ge=0, le=3, description="Windows before and after that time that count too.")
    min_change: float = Field(0.1, ge=0, description="Least difference from the median, as a share of it.")


class AlertSettings(Section):
    """One rule: what is measured, when it fires, and who is told."""

    name: Name = Field(description="Name of the rule; its history hangs on it.")
    endpoint: str = Field(description="Name of the endpoint.")
    description: str = Field("", max_length=1000, description="For who is told: what it means, what to do.")
    score: str | None = Field(None, description="Measure: scores of this evaluator.")
    metric: TrafficMetric | None = Field(None, description="Measure: a number of the traffic.")
    feedback: str | None = Field(None, description="Measure: feedback of this name.")
    lag: str | None = Field(None, description="Measure: seconds that this evaluator is behind.")
    drift: DriftAlertSettings | None = Field(None, description="Measure: drift.")
    target: Literal["request", "response"] = Field("response", description="Which side a score is of.")
    aggregate: AggregateKind = Field("mean", description="What is made of scores or feedback.")
    limit: float | None = Field(None, description="Of `share_above` and `share_below`.")
    label: str | None = Field(None, description="Of `share_label`.")
    slice: Literal["variant"] | None = Field(None, description="`variant`: each of them by itself.")
    variant: str | None = Field(None, description="Only this variant.")
    window: Duration | None = Field(
        None,
        gt=0,
        description="Time that the value is of, such as `10m` (the default). Of drift: how old the newest window may be; "
        "default: three of them.",
    )
    delay: Duration = Field(
        15.0, description="Time that records need to their table; the window ends so long ago."
    )
    above: float | None = Field(None, allow_inf_nan=False, description="Condition: the value is over this.")
    below: float | None = Field(None, allow_inf_nan=False, description="Condition: the value is under this.")
    change: ChangeSettings | None = Field(None, description="Condition: it differs from a reference.")
    anomaly: AnomalySettings | None = Field(
        None, description="Condition: it is unusual for the time of the week."
    )
    min_samples: int | None = Field(
        None,
        ge=0,
        description="With fewer values it is insufficient data. Default: 1, with `change` or `anomaly` 30.",
    )
    for_: Duration = Field(0.0, alias="for", description="How long it must hold before it fires.")
    resolve_after: Duration = Field(0.0, description="How long it must be over before it ends.")
    no_data: NoData = Field(
        "keep",
        description="Without data: it is shown as `no_data` and what fires goes on (`keep`), it counts as met (`alert`), "
        "or as not met (`ok`).",
    )
    severity: Severity = Field("warning", description="For receivers.")
    channels: list[Name] = Field(default_factory=list, description="Who is told; none: it is only shown.")
    remind_every: Duration | None = Field(None, ge=60, description="Time between reminders. Default: none.")
    every_s: Positive = Field(60.0, ge=1, description="Seconds between two looks.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        _one(self, ("score", "metric", "feedback", "lag", "drift"), "what is measured")
        _one(self, ("above", "below", "change", "anomaly"), "when it fires")
        if self.score is None and self.feedback is None and "aggregate" in self.model_fields_set:
            raise ValueError("aggregate: is for scores and feedback only. Leave it out.")
        try:
            self.build()
        except Invalid as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> AlertRule:
        """The rule. Raises :class:`~servelens.errors.Invalid`."""
        window = self.window
        if window is None:
            window = _DEFAULT_WINDOW_S if self.drift is None else _drift_window(self.drift.granularity)
        least = self.min_samples
        if least is None:
            least = _COMPARED_SAMPLES if self.change or self.anomaly else 1
        if self.lag is not None:
            least = 0
        return AlertRule(
            name=self.name,
            endpoint=self.endpoint,
            measure=self._measure(),
            condition=self._condition(),
            window=timedelta(seconds=window),
            delay=timedelta(seconds=self.delay),
            hold=timedelta(seconds=self.for_),
            resolve_after=timedelta(seconds=self.resolve_after),
            min_samples=least,
            severity=self.severity,
            no_data=self.no_data,
            channels=tuple(self.channels),
            every_s=self.every_s,
            sliced=self.slice is not None,
            variant=self.variant,
            remind_every=None if self.remind_every is None else timedelta(seconds=self.remind_every),
            description=self.description,
        )

    def _measure(self) -> Measure:
        if self.metric is not None:
            return TrafficMeasure(self.metric)
        if self.lag is not None:
            return LagMeasure(self.lag, self.target)
        if self.drift is not None:
            drift = self.drift
            kind: Literal["CONSECUTIVE", "BASELINE"] = (
                "CONSECUTIVE" if drift.against == "previous" else "BASELINE"
            )
            return DriftMeasure(drift.statistic, drift.column, drift.granularity, kind, drift.alpha)
        aggregate = Aggregate(self.aggregate, self.limit, self.label)
        if self.feedback is not None:
            return FeedbackMeasure(self.feedback, aggregate)
        assert self.score is not None, "one measure is given"
        return ScoreMeasure(self.score, self.target, aggregate)

    def _condition(self) -> Condition:
        if self.change is not None:
            return Change(**self.change.model_dump())
        if self.anomaly is not None:
            return Anomaly(**self.anomaly.model_dump())
        return Threshold(self.above, self.below)


class WebhookChannelSettings(Section):
    """JSON by POST."""

    url: SecretStr = Field(description="Address of the receiver.")
    secret: SecretStr | None = Field(
        None, description="Signs each request as in Standard Webhooks: `whsec_<base64>`, or any text."
    )
    headers: dict[str, SecretStr] = Field(default_factory=dict, description="Headers of your own.")
    timeout_s: Positive = Field(10.0, le=60, description="Seconds for a whole request.")


class SlackChannelSettings(Section):
    """An incoming webhook of Slack."""

    url: SecretStr = Field(description="Its address, which is a secret.")
    timeout_s: Positive = Field(10.0, le=60, description="Seconds for a whole request.")


class EmailChannelSettings(Section):
    """E-mail by SMTP."""

    host: str = Field(min_length=1, description="The mail server.")
    port: int = Field(587, ge=1, le=65535, description="Its port.")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection is secured."
    )
    username: str | None = Field(None, description="Who logs in.")
    password: SecretStr | None = Field(None, description="And how.")
    sender: str = Field(alias="from", description="Address of the sender.")
    recipients: list[str] = Field(alias="to", min_length=1, max_length=50, description="Addresses of people.")
    timeout_s: Positive = Field(10.0, le=60, description="Seconds for each step.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for key, address in (("from", self.sender), *(("to", each) for each in self.recipients)):
            if not _ADDRESS.fullmatch(address):
                raise ValueError(f"{key}: {address!r} is no address. Write name@example.com.")
        if self.username is not None and self.security == "none":
            raise ValueError(
                "security: a password does not go over a connection without TLS. Use starttls or tls."
            )
        if (self.username is None) != (self.password is None):
            raise ValueError("password: give both 'username' and 'password', or none.")
        return self


class PagerDutyChannelSettings(Section):
    """PagerDuty's Events API v2."""

    routing_key: SecretStr = Field(description="The integration key.")
    url: str = Field("https://events.pagerduty.com/v2/enqueue", description="Another service of this format.")
    timeout_s: Positive = Field(10.0, le=60, description="Seconds for a whole request.")


class ChannelSettings(Section):
    """One way to tell people, of one kind."""

    name: Name = Field(description="Name that rules use.")
    webhook: WebhookChannelSettings | None = Field(None, description="JSON by POST.")
    slack: SlackChannelSettings | None = Field(None, description="Slack.")
    email: EmailChannelSettings | None = Field(None, description="E-mail.")
    pagerduty: PagerDutyChannelSettings | None = Field(None, description="PagerDuty.")

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        _one(self, ("webhook", "slack", "email", "pagerduty"), "how people are told")
        for kind in ("webhook", "slack"):
            section = getattr(self, kind)
            if section is not None and not is_http(section.url.get_secret_value()):
                raise ValueError(f"{kind}.url: is no http or https address. Write https://….")
        if self.pagerduty is not None and not is_http(self.pagerduty.url):
            raise ValueError("pagerduty.url: is no http or https address. Write https://….")
        return self


def is_http(url: str) -> bool:
    """Whether that is an address of http or https."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _one(section: Section, keys: tuple[str, ...], what: str) -> None:
    given = [key for key in keys if getattr(section, key) is not None]
    if len(given) != 1:
        found = f"'{given[1]}' is a second" if given else "there is none"
        first = given[1] if given else keys[0]
        raise ValueError(f"{first}: {found} of {what}. Give exactly one of {', '.join(keys)}.")


def _drift_window(granularity: str) -> float:
    window = Granularity.parse(granularity).containing(_ANY_MOMENT)
    return _DRIFT_WINDOWS * window.length.total_seconds()
