from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from dashboard.console import Console
from dashboard.pages import alert_views, quality_alerts
from dashboard.services import ConsoleServices
from dashboard.view import View
from evaluators.alerts.silences import Silence
from servelens.alert_settings import AlertSettings

VIEW = {"endpoint": "support-chat", "range": "24h"}
NOW = datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC)


@pytest.fixture
def view(console: Console) -> View:
    return console.view(VIEW)


def shown(console: Console, view: View, silences: list[Silence] | None = None) -> str:
    alerts = console.alerts.alerts(console.services.alert_rules, endpoint=view.endpoint)
    incidents = console.alerts.incidents(endpoint=view.endpoint)
    return str(alert_views.alerts_view(alerts, incidents, silences or [], view, NOW))


def test_every_rule_says_where_it_stands(console: Console, view: View) -> None:
    page = shown(console, view)
    for words in ("Firing", "Pending", "Not looked at yet", "OK"):
        assert f"'{words}'" in page, words
    assert "share of toxicity above 0.5" in page


def test_what_fires_has_its_numbers_and_its_records(console: Console, view: View) -> None:
    (incident,) = console.alerts.incidents(endpoint="support-chat", open_only=True)
    page = shown(console, view)
    assert "threshold " in page
    assert "0.0210" in page
    for request_id in incident["examples"]:
        assert f"/requests?endpoint=support-chat&request={request_id}" in page
    assert "Roll the challenger back first" in page


def test_an_alert_has_no_two_buttons_of_one_name(console: Console, view: View) -> None:
    alerts = console.alerts.alerts(console.services.alert_rules)
    incidents = console.alerts.incidents()
    found = _buttons(alert_views.alerts_view(alerts, incidents, [], view, NOW))
    assert len(found) == 6
    assert len({tuple(sorted(one.items())) for one in found}) == len(found)


def test_what_has_ended_says_how_long_it_was_and_who_was_told(console: Console, view: View) -> None:
    incidents = console.alerts.incidents(endpoint="support-chat")
    found = alert_views.ended_view(incidents, view, NOW)
    assert found is not None
    assert found[0] == "1 incident that ended in the last 7 days"
    for words in ("'errors'", "'7 h ago'", "'17 min 0 s'", "'team'"):
        assert words in str(found[1]), words
    opened = [one for one in incidents if one["state"] == "firing"]
    assert alert_views.ended_view(opened, view, NOW) is None


def test_a_stale_rule_does_not_look_well(console: Console, view: View) -> None:
    alerts = [
        {**alert, "stale": True}
        for alert in console.alerts.alerts(console.services.alert_rules)
        if alert["rule"] == "errors"
    ]
    later = NOW + timedelta(hours=3)
    page = str(alert_views.alerts_view(alerts, [], [], view, later))
    assert "last looked 3 h ago" in page


def test_a_silence_is_told_with_its_reason_as_text(console: Console, view: View) -> None:
    silence = Silence(7, "toxic-*", None, "b", NOW, NOW + timedelta(hours=1), "ann", "<b>x</b>", NOW, None)
    page = shown(console, view, [silence])
    assert "toxic-* (b)" in page
    assert "<b>x</b> (ann)" in page
    assert "'quality-unsilence', 'id': 7" in page


def test_without_rules_it_says_how_to_make_one(empty_services: ConsoleServices) -> None:
    console = Console(empty_services)
    page = shown(console, console.view(VIEW))
    assert "No rule watches this endpoint" in page
    assert "endpoint: support-chat" in page
    assert quality_alerts._badge("ok", any_rule=False) is None


def _buttons(element: Any) -> list[dict[str, str]]:
    found = []
    for one in element._traverse():
        identifier = getattr(one, "id", None)
        if isinstance(identifier, dict) and identifier["type"] == "quality-silence":
            found.append(identifier)
    return found


def test_the_example_of_a_rule_is_one(empty_services: ConsoleServices) -> None:
    """What the page tells people to write must be taken by the settings."""
    block = yaml.safe_load(alert_views._RULE.format(endpoint="support-chat"))["alerts"][0]
    assert replace(AlertSettings.model_validate(block).build(), name="x").endpoint == "support-chat"
