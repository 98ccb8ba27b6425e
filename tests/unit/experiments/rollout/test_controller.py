"""The controller over a real decision log: what is carried out, what is held, and what a crash leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.decision_log import DecisionLog, Entry, Logged
from experiments.experiment import Experiment, Variant
from experiments.guardrail import Guardrail
from experiments.ramp import Webhook
from experiments.rollout.controller import Controller
from experiments.rollout.decision import Decision
from experiments.rollout.webhooks import Webhooks
from experiments.store import ExperimentStore
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing
from tests.new_database import new_database
from tests.unit.experiments.records import START, experiment
from tests.unit.experiments.rollout.canary import (
    RAMP,
    Lifecycles,
    canary,
    guardrail,
    latency,
    minutes,
    seen,
)
from tests.unit.experiments.rollout.hook import Hook, receiving

NAME = "v8-rollout"


class Killed(Exception):
    """The process died here."""


class Wire:
    """Kills at the n-th crossing; counts them."""

    def __init__(self, at: int = -1) -> None:
        self.at = at
        self.crossed = 0

    def __call__(self) -> None:
        self.crossed += 1
        if self.crossed == self.at:
            raise Killed


class FragileLog(DecisionLog):
    """Crosses a wire before and after each write."""

    cross: Callable[[], None] = staticmethod(lambda: None)

    def append(self, experiment: str, entry: Entry) -> Logged:
        self.cross()
        row = super().append(experiment, entry)
        self.cross()
        return row

    def settle(self, number: int, progress: Any, **more: Any) -> Logged:
        self.cross()
        row = super().settle(number, progress, **more)
        self.cross()
        return row


class Scene:
    """One canary, its controller, and time that a test moves."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.clock = ManualClock(START)
        self.use(canary())

    def use(self, definition: Experiment) -> None:
        """Another canary than the usual one."""
        self.name = definition.name
        ExperimentStore(self._database, self.clock).register(definition)
        self.lifecycle = Lifecycles(self.clock, definition)
        self.log = FragileLog(self._database, self.clock)
        self.controller = Controller(
            self.lifecycle,
            self.log,
            lambda *words: self.lifecycle.promote(*words),
            self.clock,
            webhooks=Webhooks(sleep=lambda _: None),
            code_version="1.2.3",
        )

    def hooked(self, *webhooks: Webhook, name: str = "hooked") -> None:
        self.use(canary(name=name, rollout=replace(RAMP, webhooks=webhooks)))

    def kill_at(self, crossing: int) -> Wire:
        wire = Wire(crossing)
        self.lifecycle.cross = wire
        self.log.cross = wire
        return wire

    def step(self, events: int, *guardrails: Any, after: float = 10, **changes: Any) -> Decision:
        """One look, ``after`` minutes later."""
        self.clock.advance(60 * after)
        standing = self.lifecycle.standing(self.name)
        look = seen(self.clock.now(), standing.experiment.phase, events, *guardrails, **changes)
        return self.controller.step(standing, look)

    def to_the_last_step(self) -> None:
        for _ in range(2):
            assert self.step(1_000).kind == "advance"
        self.lifecycle.changes.clear()

    @property
    def weight(self) -> float:
        return self.lifecycle.standing(self.name).experiment.treatments[0].weight

    @property
    def outcome(self) -> str | None:
        return self.lifecycle.standing(self.name).outcome

    def rows(self) -> list[Logged]:
        """Oldest first."""
        return self.log.history(self.name)[::-1]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    database = new_database(tmp_path / "servelens.db")
    yield Scene(database)
    database.dispose()


def test_a_good_canary_goes_all_the_way(scene: Scene) -> None:
    kinds = [scene.step(40, after=5).kind, *(scene.step(1_000).kind for _ in range(3))]
    assert kinds == ["hold", "advance", "advance", "promote"]
    assert scene.lifecycle.changes == [
        ("begin_phase", {"v7": 75.0, "v8": 25.0}, 1, "rollout"),
        ("begin_phase", {"v7": 50.0, "v8": 50.0}, 2, "rollout"),
        ("promote", "chat", "chat-8", "rollout"),
        ("stop", "promoted", "rollout"),
    ]
    rows = scene.rows()
    assert [(row.decision, row.step, row.phase, row.applied) for row in rows] == [
        ("hold", 0, 0, False),
        ("advance", 0, 0, True),
        ("advance", 1, 1, True),
        ("promote", 2, 2, True),
    ]
    last = rows[-1].evidence
    assert [each["state"] for each in last["guardrails"]] == ["cleared", "cleared"]
    assert last["versions"] == {"payload": 12, "scores": 3, "feedback": None}
    assert (last["code_version"], last["step_events"]) == ("1.2.3", 1_000)
    assert last["sample_ratio"]["observed"] == {"v7": 940, "v8": 60}
    assert last["weights"] == {"v7": 0.0, "v8": 100.0}
    assert scene.log.unsettled() == []


def test_harm_ends_it_at_once(scene: Scene) -> None:
    scene.step(1_000)
    decision = scene.step(20, guardrail("breached"), latency(), after=1)
    assert decision.kind == "roll_back"
    assert scene.outcome == "rolled_back"
    stopped = scene.lifecycle.standing(NAME)
    assert stopped.reason == decision.reason
    assert scene.rows()[-1].evidence["weights"] == {"v7": 100.0, "v8": 0.0}
    again = scene.step(20, guardrail("breached"))
    assert (again.kind, again.cause, again.reason) == (
        "hold",
        "ended",
        "the experiment is stopped (rolled_back)",
    )
    assert len(scene.rows()) == 2


def test_a_paused_canary_rolls_back_and_does_nothing_else(scene: Scene) -> None:
    scene.lifecycle.pause(NAME, "alice")
    assert scene.step(1_000).reason == "paused by alice"
    assert scene.step(1_000, guardrail("breached")).kind == "roll_back"
    assert scene.outcome == "rolled_back"


def test_an_open_guardrail_ends_at_the_deadline(scene: Scene) -> None:
    scene.to_the_last_step()
    assert scene.step(1_000, guardrail("open"), latency()).cause == "guardrail_open"
    assert scene.step(1_000, guardrail("open"), latency(), after=24 * 60).kind == "inconclusive"
    assert scene.outcome == "inconclusive"


def test_a_dry_run_decides_and_changes_nothing(scene: Scene) -> None:
    with receiving(Hook()) as hook:
        webhooks = (Webhook(hook.url, "before"), Webhook(hook.url))
        scene.use(canary(name="dry", rollout=replace(RAMP, dry_run=True, webhooks=webhooks)))
        for _ in range(3):
            assert scene.step(1_000).kind == "advance"
        assert scene.step(1_000, guardrail("breached")).kind == "roll_back"
    assert scene.lifecycle.changes == []
    assert hook.heard == []
    advance, roll_back = scene.rows()
    assert (advance.dry_run, advance.applied, advance.evidence["looks"]) == (True, False, 3)
    assert (roll_back.dry_run, roll_back.applied) == (True, False)


def test_without_an_analysis_it_waits(scene: Scene) -> None:
    scene.clock.advance(60)
    assert scene.controller.step(scene.lifecycle.standing(NAME), None).cause == "time"
    scene.clock.advance(3_600)
    assert scene.controller.step(scene.lifecycle.standing(NAME), None).cause == "no_analysis"
    assert scene.rows()[-1].evidence["versions"] is None


def test_a_report_of_the_phase_before_moves_nothing_up_but_its_harm_counts(scene: Scene) -> None:
    scene.step(1_000)
    old = seen(scene.clock.now() + minutes(20), 0, 1_000)
    scene.clock.advance(20 * 60)
    assert scene.controller.step(scene.lifecycle.standing(NAME), old).cause == "no_analysis"
    harm = replace(old, guardrails=(guardrail("breached"),))
    assert scene.controller.step(scene.lifecycle.standing(NAME), harm).kind == "roll_back"


def test_a_guardrail_that_the_report_forgot_is_unknown(scene: Scene) -> None:
    scene.to_the_last_step()
    decision = scene.step(1_000, guardrail())
    assert (decision.kind, decision.cause) == ("insufficient_data", "guardrail_unknown")
    assert decision.reason == "typical latency cannot be judged: the analysis says nothing about it yet"
    assert scene.step(1_000, guardrail(), latency(treatment="v6")).cause == "guardrail_unknown"


def test_harm_that_is_a_fall_is_called_lower(scene: Scene) -> None:
    scene.use(canary(name="success", guardrails=(Guardrail("success_rate", 0.01),)))
    harm = guardrail("breached", metric="success_rate", label="success rate")
    assert "success rate of v8 is 1.9 points lower than of v7" in scene.step(50, harm).reason


def test_a_split_that_is_off_is_said_in_numbers(scene: Scene) -> None:
    off = replace(
        seen(START, 0, 1).sample_ratio,
        ok=False,
        expected={"v7": 950.0, "v8": 50.0},
        observed={"v7": 900, "v8": 100},
    )
    decision = scene.step(1_000, sample_ratio=off)
    assert decision.kind == "hold"
    assert decision.reason.endswith("v7 got 900 of 1,000 users where about 950 were expected")


def test_the_first_step_begins_at_its_own_weight(scene: Scene) -> None:
    half = canary(name="half", control=Variant("v7", "chat-7", 50), treatments=(Variant("v8", "chat-8", 50),))
    scene.use(half)
    assert scene.step(0).cause == "begins"
    assert scene.weight == 5
    assert scene.lifecycle.standing("half").step == 0
    assert scene.step(1_000).to_step == 1


def test_only_a_canary_has_steps(scene: Scene) -> None:
    scene.use(experiment())
    with pytest.raises(Invalid, match="no rollout"):
        scene.step(1)


# Webhooks ---------------------------------------------------------------------------------------------------


def test_a_before_hook_holds_until_it_agrees(scene: Scene) -> None:
    with receiving(Hook((403, 403, 200))) as gate, receiving(Hook()) as listener:
        scene.hooked(Webhook(gate.url, "before"), Webhook(listener.url))
        for _ in range(2):
            held = scene.step(1_000)
            assert (held.kind, held.cause) == ("hold", "webhook")
            assert held.reason.startswith(
                f"held by webhook {gate.url} answered 403; wanted: advance, because step 1"
            )
        assert (scene.weight, listener.heard) == (5, [])
        assert scene.step(1_000).kind == "advance"
    assert scene.weight == 25
    (told,) = listener.heard
    assert {name: told[name] for name in ("experiment", "endpoint", "decision", "step", "when")} == {
        "experiment": "hooked",
        "endpoint": "chat",
        "decision": "advance",
        "step": 0,
        "when": "after",
    }
    assert told["weights"] == {"v7": 75.0, "v8": 25.0}
    assert told["evidence"]["guardrails"][0]["metric"] == "error_rate"
    assert told["at"] == scene.clock.now().isoformat()
    assert len({each["id"] for each in [told, *gate.heard]}) == 1
    held_row, row = scene.rows()
    assert (held_row.decision, held_row.evidence["wanted"], held_row.evidence["looks"]) == (
        "hold",
        "advance",
        2,
    )
    assert [each["status"] for each in row.evidence["webhooks"]] == [200, 204]


def test_nothing_holds_a_roll_back(scene: Scene) -> None:
    with receiving(Hook((403,))) as gate:
        scene.hooked(Webhook(gate.url, "before"), Webhook(gate.url))
        assert scene.step(20, guardrail("breached")).kind == "roll_back"
    assert scene.outcome == "rolled_back"
    assert [each["when"] for each in gate.heard] == ["before", "after"]
    (row,) = scene.rows()
    assert row.applied
    assert [(each["ok"], each["status"]) for each in row.evidence["webhooks"]] == [(False, 403)] * 2


def test_who_does_not_hear_does_not_stop_anything(scene: Scene) -> None:
    with receiving(Hook((500,))) as hook:
        scene.hooked(Webhook(hook.url))
        assert scene.step(1_000).kind == "advance"
    assert scene.weight == 25
    (row,) = scene.rows()
    assert (row.applied, row.evidence["webhooks"][0]["attempts"]) == (True, 4)


# People -----------------------------------------------------------------------------------------------------


def test_people_promote_and_abort_by_the_same_way(scene: Scene) -> None:
    with receiving(Hook()) as hook:
        scene.hooked(Webhook(hook.url, "before"), Webhook(hook.url))
        assert scene.controller.promote("hooked", "alice", "we know it").kind == "promote"
        assert scene.lifecycle.changes == [
            ("promote", "chat", "chat-8", "alice"),
            ("stop", "promoted", "alice"),
        ]
        (row,) = scene.rows()
        assert (row.by, row.reason, row.applied) == ("alice", "alice: we know it", True)
        assert [each["when"] for each in hook.heard] == ["before", "after"]
        with pytest.raises(Conflict, match="'hooked' is stopped \\(promoted\\)"):
            scene.controller.abort("hooked", "bob", "no!")
    with receiving(Hook((403,))) as gate:
        scene.hooked(Webhook(gate.url, "before"), name="gated")
        assert scene.controller.promote("gated", "alice", "now").cause == "webhook"
        assert scene.controller.abort("gated", "bob", "no!").kind == "abort"
    assert (scene.outcome, scene.lifecycle.routes["chat"]) == ("aborted", "chat-7")


def test_promoting_needs_to_know_whom(scene: Scene) -> None:
    three = experiment(name="three", treatments=(Variant("a", "m1", 25), Variant("b", "m2", 25)))
    scene.use(three)
    with pytest.raises(Invalid, match="2 treatments"):
        scene.controller.promote("three", "alice", "now")
    assert scene.controller.abort("three", "alice", "enough").kind == "abort"
    with pytest.raises(Missing):
        scene.controller.abort("nobody", "alice", "enough")


# Somebody else ----------------------------------------------------------------------------------------------


def test_who_changes_it_meanwhile_wins(scene: Scene) -> None:
    scene.to_the_last_step()
    scene.clock.advance(600)
    read_before = scene.lifecycle.standing(NAME)
    scene.lifecycle.pause(NAME, "alice")
    decision = scene.controller.step(read_before, seen(scene.clock.now(), 2, 1_000))
    assert (decision.kind, decision.cause) == ("hold", "conflict")
    assert "alice changed it" in decision.reason
    assert scene.lifecycle.changes == []
    assert scene.lifecycle.routes["chat"] == "chat-7"
    assert scene.log.unsettled() == []
    assert scene.step(1_000).cause == "paused"


def test_a_conflict_on_an_advance_is_decided_anew(scene: Scene) -> None:
    scene.clock.advance(600)
    read_before = scene.lifecycle.standing(NAME)
    scene.lifecycle.pause(NAME, "alice")
    scene.lifecycle.resume(NAME, "alice")
    assert scene.controller.step(read_before, seen(scene.clock.now(), 0, 1_000)).cause == "conflict"
    assert scene.weight == 5
    assert scene.step(1_000).kind == "advance"
    assert scene.weight == 25


def test_a_roll_back_waits_for_no_other_change(scene: Scene) -> None:
    read_before = scene.lifecycle.standing(NAME)
    scene.lifecycle.pause(NAME, "alice")
    harm = seen(scene.clock.now(), 0, 10, guardrail("breached"))
    assert scene.controller.step(read_before, harm).kind == "roll_back"
    assert scene.outcome == "rolled_back"


def test_what_had_ended_otherwise_is_not_called_applied(scene: Scene) -> None:
    read_before = scene.lifecycle.standing(NAME)
    scene.lifecycle.stop(NAME, "alice", "stopped", "")
    harm = seen(scene.clock.now(), 0, 10, guardrail("breached"))
    assert scene.controller.step(read_before, harm).cause == "conflict"
    (row,) = scene.rows()
    assert (row.applied, row.progress) == (False, "failed")


def test_what_cannot_be_done_is_said_and_tried_again(scene: Scene) -> None:
    scene.to_the_last_step()

    def no_such_endpoint(*_: str) -> None:
        raise Missing("there is no endpoint 'chat'")

    scene.lifecycle.promote = no_such_endpoint  # type: ignore[method-assign, assignment]
    for _ in range(3):
        decision = scene.step(1_000)
        assert (decision.kind, decision.cause) == ("hold", "failed")
        assert "there is no endpoint 'chat'" in decision.reason
    assert scene.outcome is None
    assert scene.rows()[-1].evidence["looks"] == 3


# Crashes ----------------------------------------------------------------------------------------------------

ENDS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "advance": (lambda scene: scene.step(1_000), "advance"),
    "roll_back": (lambda scene: scene.step(20, guardrail("breached")), "roll_back"),
    "promote": (lambda scene: scene.step(1_000), "promote"),
    "inconclusive": (
        lambda scene: scene.step(1_000, guardrail("open"), latency(), after=24 * 60),
        "inconclusive",
    ),
    "abort": (lambda scene: scene.controller.abort(scene.name, "alice", "no"), "abort"),
    "manual_promote": (lambda scene: scene.controller.promote(scene.name, "alice", "go"), "promote"),
}


@pytest.mark.parametrize("case", ENDS)
def test_a_crash_at_any_write_is_repaired_by_the_next_run(scene: Scene, case: str) -> None:
    act, decision = ENDS[case]
    with receiving(Hook()) as hook:

        def fresh(name: str) -> None:
            scene.hooked(Webhook(hook.url, "after"), name=name)
            if case in ("promote", "inconclusive"):
                scene.to_the_last_step()
            hook.heard.clear()

        fresh("undisturbed")
        wire = scene.kill_at(-1)
        act(scene)
        wanted = (scene.lifecycle.changes, scene.weight, scene.outcome, scene.lifecycle.routes)
        crossings = wire.crossed
        assert crossings >= 8
        for crossing in range(1, crossings + 1):
            fresh(f"killed-{crossing}")
            scene.kill_at(crossing)
            with pytest.raises(Killed):
                act(scene)
            scene.kill_at(-1)
            scene.controller.recover()
            if (
                scene.lifecycle.changes != wanted[0]
            ):  # nothing had been written, or an advance was interrupted
                act(scene)
            found = (scene.lifecycle.changes, scene.weight, scene.outcome, scene.lifecycle.routes)
            assert found == wanted, f"killed at {crossing}"
            assert scene.log.unsettled() == []
            (applied,) = (row for row in scene.rows() if row.applied and row.decision == decision)
            assert applied.progress == "told"
            assert {each["decision"] for each in hook.heard} == {decision}
            assert len({each["id"] for each in hook.heard}) == 1
            assert scene.controller.recover() == 0


def test_a_step_repairs_before_it_decides(scene: Scene) -> None:
    scene.to_the_last_step()
    scene.kill_at(4)  # the route has moved, and the experiment runs
    with pytest.raises(Killed):
        scene.step(1_000)
    scene.kill_at(-1)
    assert scene.lifecycle.routes["chat"] == "chat-8"
    assert scene.outcome is None
    # Whatever is seen now, half a promotion is no state to stay in.
    assert scene.step(1_000, guardrail("open")).cause == "ended"
    assert scene.outcome == "promoted"


def test_half_a_promotion_that_somebody_stopped_is_not_called_applied(scene: Scene) -> None:
    scene.to_the_last_step()
    scene.kill_at(4)
    with pytest.raises(Killed):
        scene.step(1_000)
    scene.kill_at(-1)
    scene.lifecycle.stop(NAME, "alice", "stopped", "")
    assert scene.controller.recover() == 1
    row = scene.rows()[-1]
    assert (row.decision, row.applied, row.progress) == ("promote", False, "failed")
    assert row.evidence["failure"].startswith(
        "it was stopped (stopped) meanwhile; its route may have been moved"
    )
