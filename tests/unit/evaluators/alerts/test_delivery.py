"""evaluators.alerts.delivery: from a change of state to a real receiver, once, whatever happens in between."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from evaluators.alerts.channels.channel import Channel
from evaluators.alerts.channels.webhook import WebhookChannel
from evaluators.alerts.delivery import Deliverer
from evaluators.alerts.metrics import alert_metrics
from evaluators.alerts.outbox import LEASE, OLDEST, Outbox
from evaluators.alerts.overview import AlertOverview
from evaluators.alerts.silences import Silences
from evaluators.alerts.store import AlertStore
from servelens.clock import ManualClock
from servelens.database import Database
from tests.new_database import write_new_database
from tests.unit.evaluators.alerts.receivers import HttpSink, http_sink
from tests.unit.evaluators.alerts.rules import START, breached, clear, no_data, rule

ROOT = Path(__file__).resolve().parents[4]


class Scene:
    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(START)
        self.database = Database(f"sqlite:///{folder}/alerts.db")
        self.store = AlertStore(self.database, self.clock)
        self.silences = Silences(self.database, self.clock)
        self.overview = AlertOverview(self.database, self.clock)

    def deliverer(
        self, rules: tuple[str, ...] = ("toxic",), timeout_s: float = 10.0, **sinks: HttpSink
    ) -> Deliverer:
        channels: dict[str, Channel] = {
            name: WebhookChannel(sink.url, self.clock, timeout_s=timeout_s) for name, sink in sinks.items()
        }
        outbox = Outbox(self.database, self.clock)
        return Deliverer(
            self.store, outbox, channels, frozenset(rules), self.clock, public_url="https://l.example"
        )

    def record(self, finding: Any, **changes: Any) -> str | None:
        return self.store.record(rule(**changes), "", finding, lambda: ["r1"])

    def deliveries(self) -> list[dict[str, Any]]:
        (incident,) = self.overview.incidents()
        found: list[dict[str, Any]] = self.overview.incident(incident["incident"])["deliveries"]
        return found


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    write_new_database(tmp_path / "alerts.db")
    made = Scene(tmp_path)
    yield made
    made.database.dispose()


def kinds(sink: HttpSink) -> list[str]:
    return [request.json["kind"] for request in sink.received]


def test_one_incident_is_told_of_when_it_starts_and_when_it_ends(scene: Scene) -> None:
    with http_sink(200) as sink:
        deliverer = scene.deliverer(hook=sink)
        for finding in (breached(), breached(), breached(), clear(), clear()):
            scene.record(finding)
            deliverer.run()
            scene.clock.advance(60)
    assert kinds(sink) == ["firing", "resolved"]
    first, second = (request.json for request in sink.received)
    assert first["incident"] == second["incident"]
    assert first["id"] != second["id"]
    assert first["examples"] == ["r1"]
    assert first["link"] == "https://l.example/quality?endpoint=chat"
    assert second["resolution"] == "the share is 0, not above 0.1"


def test_every_channel_is_told(scene: Scene) -> None:
    with http_sink(200) as one, http_sink(200) as other:
        scene.record(breached(), channels=("a", "b", "a"))
        assert scene.deliverer(a=one, b=other).run()["sent"] == 2
    assert (kinds(one), kinds(other)) == (["firing"], ["firing"])


def test_what_fails_is_tried_again_later_and_each_attempt_is_kept(scene: Scene) -> None:
    with http_sink(500, (503, {"retry-after": "60"}), 200) as sink:
        deliverer = scene.deliverer(hook=sink)
        scene.record(breached())
        assert deliverer.run()["waiting"] == 1
        assert deliverer.run() == {"sent": 0, "waiting": 0, "failed": 0, "expired": 0}
        scene.clock.advance(5)
        assert deliverer.run()["waiting"] == 1
        scene.clock.advance(59)
        assert deliverer.run()["waiting"] == 0
        scene.clock.advance(1)
        assert deliverer.run()["sent"] == 1
    assert len({request.headers["idempotency-key"] for request in sink.received}) == 1
    (delivery,) = scene.deliveries()
    assert (delivery["status"], delivery["attempts"], delivery["http_status"]) == ("sent", 3, 200)
    assert [entry["status"] for entry in delivery["attempts_log"]] == [500, 503, 200]


def test_who_is_gone_is_not_asked_again(scene: Scene) -> None:
    with http_sink(410) as sink:
        deliverer = scene.deliverer(hook=sink)
        scene.record(breached())
        assert deliverer.run()["failed"] == 1
        scene.clock.advance(3600)
        deliverer.run()
    assert len(sink.received) == 1
    (delivery,) = scene.deliveries()
    assert (delivery["status"], delivery["detail"]) == ("failed", "answered 410")


def test_who_is_away_for_a_day_is_given_up_but_hears_of_the_end(scene: Scene) -> None:
    with http_sink(500) as sink:
        deliverer = scene.deliverer(hook=sink)
        scene.record(breached())
        deliverer.run()
        scene.record(clear())
        assert deliverer.run() == {"sent": 0, "waiting": 0, "failed": 0, "expired": 0}
        scene.clock.advance(OLDEST.total_seconds())
        assert deliverer.run()["expired"] == 1
        sink.answers = [200]
        scene.clock.advance(60)
        assert deliverer.run()["sent"] == 1
    assert kinds(sink) == ["firing", "firing", "resolved"]
    assert [delivery["status"] for delivery in scene.deliveries()] == ["expired", "sent"]


def test_the_end_waits_for_the_start(scene: Scene) -> None:
    with http_sink(500, 200) as sink:
        deliverer = scene.deliverer(hook=sink)
        scene.record(breached())
        deliverer.run()
        scene.record(clear())
        deliverer.run()
        scene.clock.advance(6)
        assert deliverer.run()["sent"] == 2
    assert kinds(sink) == ["firing", "firing", "resolved"]


def test_a_receiver_that_hangs_holds_up_no_other(scene: Scene) -> None:
    with http_sink(None) as hanging, http_sink(200) as sink:
        for number in range(3):
            scene.record(breached(), name=f"r{number}", channels=("slow", "hook"))
        counts = scene.deliverer(("r0", "r1", "r2"), 1.0, slow=hanging, hook=sink).run()
    assert counts == {"sent": 3, "waiting": 1, "failed": 0, "expired": 0}
    assert len(hanging.received) == 1  # one time limit a run, not three


def test_a_channel_that_is_not_in_the_settings_fails_with_that_reason(scene: Scene) -> None:
    scene.record(breached())
    assert scene.deliverer().run()["failed"] == 1
    assert "no such channel" in scene.deliveries()[0]["detail"]


def test_a_process_that_is_killed_before_it_told_anybody(tmp_path: Path) -> None:
    write_new_database(tmp_path / "alerts.db")
    command = [sys.executable, "-m", "tests.unit.evaluators.alerts.delivering", str(tmp_path)]
    killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    scene = Scene(tmp_path)
    try:
        with http_sink(200) as sink:
            deliverer = scene.deliverer(hook=sink)
            scene.record(breached())  # the restarted rule still finds the same
            for _ in range(3):
                deliverer.run()
                scene.clock.advance(LEASE.total_seconds())
        assert kinds(sink) == ["firing"]
        assert len(scene.overview.incidents()) == 1
    finally:
        scene.database.dispose()


def test_what_a_dead_sender_had_claimed_is_sent_under_the_same_key(scene: Scene) -> None:
    scene.record(breached())
    claimed = Outbox(scene.database, scene.clock).claim("hook")
    assert claimed is not None
    with http_sink(200) as sink:
        deliverer = scene.deliverer(hook=sink)
        deliverer.run()
        assert sink.received == []  # it may be on its way
        scene.clock.advance(LEASE.total_seconds())
        for _ in range(2):
            deliverer.run()
    assert [request.headers["idempotency-key"] for request in sink.received] == [claimed.document["id"]]


def test_reminders_come_while_it_fires(scene: Scene) -> None:
    with http_sink(200) as sink:
        deliverer = scene.deliverer(hook=sink)
        remind = {"remind_every": timedelta(minutes=30)}
        for _ in range(5):
            scene.record(breached(), **remind)
            deliverer.run()
            scene.clock.advance(900)
        scene.record(clear(), **remind)
        deliverer.run()
        scene.clock.advance(3600)
        deliverer.run()
    assert kinds(sink) == ["firing", "reminder", "reminder", "resolved"]
    assert len({request.json["id"] for request in sink.received}) == 4


def test_who_is_away_is_not_reminded_of_what_they_have_not_heard(scene: Scene) -> None:
    with http_sink(500) as sink:
        deliverer = scene.deliverer(hook=sink)
        for _ in range(10):
            scene.record(breached(), remind_every=timedelta(minutes=1))
            deliverer.run()
            scene.clock.advance(60)
        sink.answers = [200]
        sink.received.clear()
        scene.clock.advance(3600)
        deliverer.run()
        assert kinds(sink) == ["firing"]
        scene.clock.advance(60)
        deliverer.run()
    assert kinds(sink) == ["firing", "reminder"]


def test_in_a_silence_it_is_recorded_and_nobody_is_told(scene: Scene) -> None:
    silence = scene.silences.add(
        rule="tox*", ends_at=START + timedelta(hours=1), author="ann", reason="a load test"
    )
    with http_sink(200) as sink:
        deliverer = scene.deliverer(hook=sink)
        scene.record(breached())
        deliverer.run()
        (incident,) = scene.overview.incidents()
        assert (incident["silenced_by"], incident["announced_at"]) == (silence.id, None)
        assert sink.received == []
        scene.record(clear())
        deliverer.run()
        scene.clock.advance(3600)
        deliverer.run()
    assert sink.received == []


@pytest.mark.parametrize("by_hand", [True, False])
def test_what_still_fires_when_the_silence_ends_is_told_of(scene: Scene, by_hand: bool) -> None:
    silence = scene.silences.add(
        endpoint="chat", ends_at=START + timedelta(hours=1), author="ann", reason="a load test"
    )
    with http_sink(200) as sink:
        deliverer = scene.deliverer(hook=sink)
        scene.record(breached())
        deliverer.run()
        assert sink.received == []
        if by_hand:
            scene.silences.end(silence.id, "ann")
        else:
            scene.clock.advance(3600)
        deliverer.run()
        deliverer.run()
        scene.record(clear())
        deliverer.run()
    assert kinds(sink) == ["firing", "resolved"]


def test_an_end_is_told_also_in_a_silence_and_reminders_are_not(scene: Scene) -> None:
    with http_sink(200) as sink:
        deliverer = scene.deliverer(hook=sink)
        scene.record(breached(), remind_every=timedelta(minutes=1))
        deliverer.run()
        scene.silences.add(
            rule="toxic", slice_="*", ends_at=START + timedelta(hours=1), author="ann", reason="known"
        )
        scene.clock.advance(120)
        deliverer.run()
        scene.record(clear())
        deliverer.run()
    assert kinds(sink) == ["firing", "resolved"]


def test_a_silence_of_others_does_not_matter(scene: Scene) -> None:
    for pattern in (
        {"rule": "other"},
        {"endpoint": "chat2"},
        {"slice_": "b"},
        {"rule": "toxic", "endpoint": "x"},
    ):
        scene.silences.add(ends_at=START + timedelta(hours=1), author="ann", reason="r", **pattern)
    with http_sink(200) as sink:
        scene.record(breached())
        scene.deliverer(hook=sink).run()
    assert kinds(sink) == ["firing"]


def test_a_rule_that_is_gone_ends_what_it_told_of(scene: Scene) -> None:
    with http_sink(200) as sink:
        scene.record(breached())
        scene.deliverer(hook=sink).run()
        counts = scene.deliverer((), hook=sink).run()
    assert counts["sent"] == 1
    assert kinds(sink) == ["firing", "resolved"]
    assert sink.received[1].json["resolution"] == "the rule is no longer in the settings"


def test_no_data_does_not_end_it(scene: Scene) -> None:
    with http_sink(200) as sink:
        deliverer = scene.deliverer(hook=sink)
        for finding in (breached(), no_data(), breached()):
            scene.record(finding)
            deliverer.run()
    assert kinds(sink) == ["firing"]


def test_old_incidents_are_forgotten_and_open_ones_never(scene: Scene) -> None:
    with http_sink(200) as sink:
        deliverer = scene.deliverer(("old", "toxic"), hook=sink)
        scene.record(breached(), name="old")
        scene.record(breached())
        scene.record(clear(), name="old")
        deliverer.run()
        assert scene.store.forget(START) == 0
        scene.clock.advance(91 * 86_400)
        deliverer.run()
    assert [each["rule"] for each in scene.overview.incidents()] == ["toxic"]


def test_metrics(scene: Scene) -> None:
    with http_sink(410) as sink:
        scene.record(breached())
        scene.deliverer(hook=sink).run()
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in alert_metrics(scene.overview)
        for sample in metric.samples
    }
    assert found == {
        ("servelens_alerts_readable",): 1,
        ("servelens_alerts_firing", "toxic", "chat", "warning"): 1,
        ("servelens_alert_deliveries", "hook", "failed"): 1,
    }


def test_metrics_without_a_database_say_so(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/nowhere/alerts.db")
    (metric,) = alert_metrics(AlertOverview(database, ManualClock(START)))
    assert [sample.value for sample in metric.samples] == [0]
    database.dispose()
