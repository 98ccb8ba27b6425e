"""Alerts from the settings: channels, and the jobs of the scheduler."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from functools import partial
from typing import Final

from pydantic import SecretStr

from collector.catalog import Catalog
from evaluators.alerts.channels.channel import Channel
from evaluators.alerts.channels.email import EmailChannel
from evaluators.alerts.channels.pagerduty import PagerDutyChannel
from evaluators.alerts.channels.slack import SlackChannel
from evaluators.alerts.channels.webhook import WebhookChannel
from evaluators.alerts.delivery import Deliverer
from evaluators.alerts.evaluation import RuleEvaluator
from evaluators.alerts.outbox import Outbox
from evaluators.alerts.store import AlertStore
from evaluators.runs.schedule import Job
from servelens.alert_settings import ChannelSettings
from servelens.assembly.alert_rules import build_rules
from servelens.clock import Clock
from servelens.database import Database
from servelens.errors import Invalid, InvalidSettings
from servelens.settings import Settings

DELIVER_EVERY_S: Final = 5.0


def build_channels(settings: Settings, clock: Clock) -> dict[str, Channel]:
    """The channels by name. Raises :class:`~servelens.errors.Invalid` naming the key."""
    found = {}
    for index, channel in enumerate(settings.channels):
        try:
            found[channel.name] = _channel(channel, clock)
        except Invalid as error:
            kind = next(iter(channel.model_dump(exclude={"name"}, exclude_none=True)))
            raise error.within(f"channels[{index}].{kind}") from error
    return found


def alert_jobs(
    settings: Settings,
    catalog: Catalog,
    database: Database,
    clock: Clock,
    stop: threading.Event,
    known: Collection[str],
) -> list[Job]:
    """One job for each rule, and one that delivers. The last is always there: when all rules are gone, what they told of
    has to end. ``known`` are the names that scores can have; InvalidSettings when a rule has another.
    """
    _refuse_unknown(settings, known)
    store = AlertStore(database, clock)
    rules = build_rules(settings)
    jobs = []
    for rule in rules:
        look: Callable[[], object] = RuleEvaluator(rule, catalog.tables(rule.endpoint), store, clock).run
        # One look at a time: rules are many, and none is in a hurry.
        jobs.append(Job(f"alert {rule.name}", rule.every_s, look, group="alerts"))
    deliverer = Deliverer(
        store,
        Outbox(database, clock),
        build_channels(settings, clock),
        frozenset(rule.name for rule in rules),
        clock,
        public_url=settings.console.public_url,
    )
    return [*jobs, Job("deliver alerts", DELIVER_EVERY_S, partial(deliverer.run, stop))]


def _refuse_unknown(settings: Settings, known: Collection[str]) -> None:
    for index, alert in enumerate(settings.alerts):
        for key, name in (("score", alert.score), ("lag", alert.lag)):
            if name is not None and name not in known:
                raise InvalidSettings(
                    f"there is no evaluator '{name}'.",
                    field=f"alerts[{index}].{key}",
                    fix=f"Known are: {', '.join(sorted(known))}.",
                )


def _channel(channel: ChannelSettings, clock: Clock) -> Channel:
    if channel.webhook is not None:
        webhook = channel.webhook
        return WebhookChannel(
            webhook.url.get_secret_value(),
            clock,
            secret=_secret(webhook.secret),
            headers={name: value.get_secret_value() for name, value in webhook.headers.items()},
            timeout_s=webhook.timeout_s,
        )
    if channel.slack is not None:
        return SlackChannel(channel.slack.url.get_secret_value(), timeout_s=channel.slack.timeout_s)
    if channel.email is not None:
        email = channel.email
        return EmailChannel(
            email.host,
            email.port,
            email.sender,
            email.recipients,
            security=email.security,
            username=email.username,
            password=_secret(email.password),
            timeout_s=email.timeout_s,
        )
    assert channel.pagerduty is not None, "the settings have exactly one of them"
    pagerduty = channel.pagerduty
    return PagerDutyChannel(
        pagerduty.routing_key.get_secret_value(), url=pagerduty.url, timeout_s=pagerduty.timeout_s
    )


def _secret(value: SecretStr | None) -> str | None:
    return None if value is None else value.get_secret_value()
