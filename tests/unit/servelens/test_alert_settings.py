"""The keys ``alerts`` and ``channels``: what they become, and what is refused with the name of the key."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from evaluators.alerts.channels.email import EmailChannel
from evaluators.alerts.channels.pagerduty import PagerDutyChannel
from evaluators.alerts.channels.slack import SlackChannel
from evaluators.alerts.channels.webhook import WebhookChannel
from evaluators.alerts.rule import (
    Aggregate,
    Anomaly,
    Change,
    DriftMeasure,
    FeedbackMeasure,
    LagMeasure,
    ScoreMeasure,
    Threshold,
    TrafficMeasure,
)
from servelens.assembly.alert_rules import build_rules
from servelens.assembly.alerts import alert_jobs, build_channels
from servelens.assembly.tables import build_catalog
from servelens.clock import SystemClock
from servelens.database import Database
from servelens.errors import Invalid, InvalidSettings
from servelens.settings import Settings
from servelens.settings_file import load_settings
from tests.unit.servelens.control_settings import backend, routes

CHANNELS: list[dict[str, Any]] = [
    {"name": "hook", "webhook": {"url": "https://example.com/${TOKEN}", "secret": "${TOKEN}"}},
    {"name": "team", "slack": {"url": "https://hooks.slack.com/services/${TOKEN}"}},
    {"name": "mail", "email": {"host": "mail", "from": "a@example.com", "to": ["b@example.com"]}},
    {"name": "pager", "pagerduty": {"routing_key": "${TOKEN}"}},
]


def load(folder: Path, **more: Any) -> Settings:
    config = folder / "servelens.yaml"
    split = {"served_entities": [backend("a")], "traffic_config": routes(a=100)}
    endpoints = [{"name": "chat", "config": split}]
    config.write_text(yaml.safe_dump({"data_dir": "data", "endpoints": endpoints, **more}))
    return load_settings(config, {"TOKEN": "s3cret"})


def alert(**keys: Any) -> dict[str, Any]:
    return {"name": "toxic", "endpoint": "chat", **keys}


def test_a_rule_has_what_the_block_says(tmp_path: Path) -> None:
    block = alert(
        score="toxicity",
        aggregate="share_above",
        limit=0.5,
        above=0.05,
        window="1h",
        slice="variant",
        severity="critical",
        channels=["team", "pager"],
        no_data="alert",
        resolve_after=300,
        remind_every="1d",
        **{"for": "10m"},
    )
    settings = load(tmp_path, channels=CHANNELS, alerts=[block])
    (rule,) = build_rules(settings)
    assert rule.measure == ScoreMeasure("toxicity", "response", Aggregate("share_above", 0.5))
    assert rule.condition == Threshold(above=0.05)
    assert (rule.window, rule.hold) == (timedelta(hours=1), timedelta(minutes=10))
    assert (rule.resolve_after, rule.remind_every) == (timedelta(minutes=5), timedelta(days=1))
    assert (rule.sliced, rule.min_samples, rule.channels) == (True, 1, ("team", "pager"))
    assert "s3cret" not in repr(settings)


@pytest.mark.parametrize(
    ("keys", "measure", "condition", "least", "window"),
    [
        ({"metric": "error_rate", "above": 0.1}, TrafficMeasure("error_rate"), Threshold(above=0.1), 1, 600),
        (
            {"metric": "requests", "anomaly": {"direction": "down"}, "window": "1h"},
            TrafficMeasure("requests"),
            Anomaly(direction="down"),
            30,
            3600,
        ),
        (
            {"feedback": "thumbs", "aggregate": "share_below", "limit": 0.5, "change": {"absolute": 0.1}},
            FeedbackMeasure("thumbs", Aggregate("share_below", 0.5)),
            Change(absolute=0.1),
            30,
            600,
        ),
        ({"lag": "toxicity", "above": 60}, LagMeasure("toxicity"), Threshold(above=60), 0, 600),
        (
            {"drift": {"column": "tokens", "statistic": "psi", "against": "baseline"}, "above": 0.2},
            DriftMeasure("psi", "tokens", drift_type="BASELINE"),
            Threshold(above=0.2),
            1,
            3 * 3600,
        ),
        (
            {"drift": {"granularity": "1 day"}, "above": 0},
            DriftMeasure(granularity="1 day"),
            Threshold(above=0),
            1,
            259_200,
        ),
    ],
)
def test_measures_and_conditions(
    tmp_path: Path, keys: dict[str, Any], measure: Any, condition: Any, least: int, window: float
) -> None:
    drift = [{"endpoint": "chat", "granularity": each} for each in ("1 hour", "1 day")]
    (rule,) = build_rules(load(tmp_path, alerts=[alert(**keys)], drift=drift))
    assert (rule.measure, rule.condition, rule.min_samples) == (measure, condition, least)
    assert rule.window.total_seconds() == window


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"above": 1}, "alerts[0].score: there is none of what is measured"),
        ({"score": "x", "metric": "requests", "above": 1}, "alerts[0].metric: 'metric' is a second"),
        ({"score": "x"}, "alerts[0].above: there is none of when it fires"),
        ({"score": "x", "above": 1, "below": 0}, "alerts[0].below: 'below' is a second"),
        ({"score": "x", "aggregate": "share_above", "above": 1}, "alerts[0].limit: 'share_above' needs one"),
        ({"score": "x", "limit": 1, "above": 1}, "alerts[0].limit: 'mean' takes none"),
        ({"score": "x", "aggregate": "share_label", "above": 1}, "alerts[0].label: 'share_label' needs one"),
        ({"metric": "requests", "aggregate": "mean", "above": 1}, "alerts[0].aggregate: is for scores"),
        ({"metric": "cats", "above": 1}, "alerts[0].metric"),
        ({"metric": "requests", "change": {}}, "alerts[0].change.relative: a change has one margin"),
        ({"metric": "requests", "change": {"relative": 0.1}, "min_samples": 1}, "alerts[0].min_samples"),
        (
            {"metric": "requests", "change": {"relative": 0.1, "against": "baseline"}},
            "alerts[0].change.baseline_start",
        ),
        ({"metric": "requests", "anomaly": {"weeks": 2}}, "alerts[0].anomaly.min_weeks"),
        ({"metric": "requests", "anomaly": {}, "window": "2d"}, "alerts[0].window: is longer than a day"),
        ({"drift": {}, "change": {"relative": 0.1}}, "alerts[0].change: drift and lag"),
        ({"score": "x", "above": 1, "window": "10 parsecs"}, "alerts[0].window"),
        ({"score": "x", "above": 1, "window": 0}, "alerts[0].window"),
        ({"score": "x", "above": 1, "slice": "variant", "variant": "b"}, "alerts[0].variant"),
        (
            {"score": "x", "above": 1, "channels": ["nobody"]},
            "alerts[0].channels: there is no channel 'nobody'",
        ),
        ({"score": "x", "above": 1, "endpoint": "other"}, "alerts[0].endpoint: there is no endpoint 'other'"),
        ({"score": "x", "above": float("nan")}, "alerts[0].above"),
        ({"score": "x", "above": 1, "fro": "10m"}, "Did you mean 'for'?"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load(tmp_path, alerts=[alert(**keys)])
    assert said in str(refused.value)


def test_two_of_a_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="alerts: there are two of the alert 'toxic'"):
        load(tmp_path, alerts=[alert(score="x", above=1)] * 2)
    with pytest.raises(InvalidSettings, match="channels: there are two of the channel 'hook'"):
        load(tmp_path, channels=[CHANNELS[0]] * 2)


def test_channels_are_built(tmp_path: Path) -> None:
    built = build_channels(load(tmp_path, channels=CHANNELS), SystemClock())
    kinds = {"hook": WebhookChannel, "team": SlackChannel, "mail": EmailChannel, "pager": PagerDutyChannel}
    assert {name: type(channel) for name, channel in built.items()} == kinds


MAIL = {"host": "mail", "from": "a@example.com", "to": ["b@example.com"]}


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ({}, "channels[0].webhook: there is none of how people are told"),
        ({"slack": {"url": "https://a/"}, "email": MAIL}, "channels[0].email: 'email' is a second"),
        ({"webhook": {"url": "example.com/hook"}}, "channels[0].webhook.url: is no http or https address"),
        ({"slack": {"url": "http://[::1"}}, "channels[0].slack.url"),
        ({"email": {**MAIL, "to": ["b"]}}, "channels[0].email.to: 'b' is no address"),
        ({"email": {**MAIL, "from": "a@b\nBcc: c@d"}}, "channels[0].email.from"),
        ({"email": {**MAIL, "username": "me"}}, "channels[0].email.password"),
        (
            {"email": {**MAIL, "username": "me", "password": "x", "security": "none"}},
            "channels[0].email.security: a password does not go over",
        ),
    ],
)
def test_channels_that_cannot_be_are_refused(tmp_path: Path, channel: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSettings) as refused:
        load(tmp_path, channels=[{"name": "c", **channel}])
    assert said in str(refused.value)


def test_a_broken_signing_secret_is_said_with_its_channel(tmp_path: Path) -> None:
    channel = {"name": "c", "webhook": {"url": "https://a/", "secret": "whsec_?"}}
    with pytest.raises(Invalid, match=r"channels\[0\]\.webhook\.secret: .* no base64"):
        build_channels(load(tmp_path, channels=[channel]), SystemClock())


def test_the_address_of_the_console(tmp_path: Path) -> None:
    settings = load(tmp_path, console={"public_url": "https://lens.example"})
    assert settings.console.public_url == "https://lens.example"
    with pytest.raises(InvalidSettings, match=r"console\.public_url: is no http"):
        load(tmp_path, console={"public_url": "lens.example"})


def test_drift_that_nobody_computes_and_scores_that_nobody_gives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidSettings, match=r"alerts\[0\]\.drift\.granularity: 'chat' has no drift by 1 hour"
    ):
        load(
            tmp_path, alerts=[alert(drift={}, above=0)], drift=[{"endpoint": "chat", "granularity": "1 day"}]
        )
    settings = load(tmp_path, alerts=[alert(lag="toxicty", above=60)])
    database = Database(f"sqlite:///{tmp_path}/alerts.db")
    with pytest.raises(InvalidSettings, match=r"^alerts\[0\]\.lag: there is no evaluator 'toxicty'"):
        alert_jobs(
            settings, build_catalog(settings), database, SystemClock(), threading.Event(), ["toxicity"]
        )
    database.dispose()
