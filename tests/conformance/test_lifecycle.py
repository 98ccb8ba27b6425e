"""Experiments in the database: changes in one order, the file reconciled like `kubectl apply`, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from experiments.experiment import Experiment, Price, Variant
from experiments.guardrail import Guardrail
from experiments.lifecycle import Lifecycle
from experiments.models import ExperimentRow, LifecycleRow, PhaseRow
from experiments.ramp import Ramp, Step
from experiments.standing import Standing
from experiments.store import ExperimentStore
from servelens.clock import ManualClock
from servelens.database import Database
from servelens.errors import Conflict, Invalid, Missing
from tests.unit.experiments.records import START, experiment

FILE = "servelens.yaml"


def canary(name: str = "safe", **changes: Any) -> Experiment:
    """A canary on endpoint ``chat`` with steps of 5, 25 and 50 %."""
    values: dict[str, Any] = {
        "name": name,
        "kind": "canary",
        "control": Variant("old", "v1", 95),
        "treatments": (Variant("new", "v2", 5),),
        "primary_metric": "error_rate",
        "secondary_metrics": (),
        "guardrails": (Guardrail("error_rate", 0.01),),
        "rollout": Ramp((Step(5), Step(25), Step(50))),
    }
    return experiment(**{**values, **changes})


def shadow(name: str = "silent", **changes: Any) -> Experiment:
    arms = {"control": Variant("old", "v1"), "treatments": (Variant("new", "v2"),)}
    return experiment(name=name, kind="shadow", **{**arms, **changes})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def lifecycle(database: Database, clock: ManualClock) -> Lifecycle:
    return Lifecycle(database, clock)


@pytest.fixture
def other(database_url: str) -> Iterator[Lifecycle]:
    """The same database as another process sees it."""
    opened = Database(database_url)
    yield Lifecycle(opened, ManualClock(START))
    opened.dispose()


def states(lifecycle: Lifecycle) -> dict[str, str]:
    return {each.experiment.name: each.outcome or each.state for each in lifecycle.standings()}


def phases(database: Database, name: str) -> dict[int, dict[str, float]]:
    return ExperimentStore(database, ManualClock(START)).weights(name)


def test_created_paused_resumed_and_stopped(lifecycle: Lifecycle, clock: ManualClock) -> None:
    assert (lifecycle.generation(), lifecycle.assigned()) == (0, (0, []))
    created = lifecycle.create(experiment(), by="ann", start=True)
    assert created == Standing(
        experiment=experiment(),
        state="running",
        outcome=None,
        reason=None,
        step=0,
        step_started_at=START,
        revision=1,
        source="api",
        started_at=START,
        stopped_at=None,
        changed_by="ann",
        changed_at=START,
    )
    assert lifecycle.assigned() == (1, [experiment()])
    clock.advance(60)
    paused = lifecycle.pause("tone", by="bob")
    assert (paused.state, paused.revision, paused.changed_by) == ("paused", 2, "bob")
    assert lifecycle.assigned() == (2, [experiment()])
    assert lifecycle.resume("tone", by="bob").state == "running"
    clock.advance(60)
    stopped = lifecycle.stop("tone", "ann", reason="seen enough")
    assert (stopped.state, stopped.outcome, stopped.reason) == ("stopped", "stopped", "seen enough")
    assert stopped.stopped_at == START + timedelta(seconds=120)
    assert lifecycle.assigned() == (4, [])
    assert lifecycle.standing("tone") == stopped
    assert lifecycle.standings() == [stopped]
    assert lifecycle.stop("tone", "ann") == stopped
    assert lifecycle.generation() == 4


def test_a_draft_assigns_nobody_until_it_is_started(
    lifecycle: Lifecycle, clock: ManualClock, database: Database
) -> None:
    draft = lifecycle.create(experiment(), by="ann", start=False)
    assert (draft.state, draft.started_at, draft.step_started_at) == ("draft", None, None)
    assert lifecycle.assigned()[1] == []
    assert lifecycle.live() == []
    assert phases(database, "tone") == {}
    clock.advance(60)
    started = lifecycle.start("tone", by="bob")
    assert started.started_at == started.step_started_at == START + timedelta(seconds=60)
    assert lifecycle.assigned()[1] == [experiment()]
    assert phases(database, "tone") == {0: {"champion": 50, "challenger": 50}}


def test_a_draft_may_be_thrown_away(lifecycle: Lifecycle) -> None:
    lifecycle.create(experiment(), by="ann", start=False)
    with pytest.raises(Conflict, match="is a draft, so it cannot be promoted"):
        lifecycle.stop("tone", "ann", "promoted")
    assert lifecycle.stop("tone", "ann").state == "stopped"


Change = Callable[[Lifecycle], object]
START_IT: Change = lambda it: it.start("tone", "ann")  # noqa: E731
PAUSE: Change = lambda it: it.pause("tone", "ann")  # noqa: E731
RESUME: Change = lambda it: it.resume("tone", "ann")  # noqa: E731
PROMOTE: Change = lambda it: it.stop("tone", "ann", "promoted")  # noqa: E731
PHASE: Change = lambda it: it.begin_phase("tone", {"champion": 20, "challenger": 80}, by="ann")  # noqa: E731
SHARE: Change = lambda it: it.change_share("tone", 70, "ann")  # noqa: E731


@pytest.mark.parametrize(
    ("before", "change", "words"),
    [
        ([], START_IT, "is running, so it cannot be started"),
        ([], RESUME, "is running, so it cannot be resumed"),
        ([PAUSE], PAUSE, "is paused, so it cannot be paused"),
        ([PAUSE], PHASE, "is paused, so it cannot be given other weights"),
        ([PROMOTE], START_IT, "has stopped, so it cannot be started"),
        ([PROMOTE], PAUSE, "has stopped, so it cannot be paused"),
        ([PROMOTE], RESUME, "has stopped, so it cannot be resumed"),
        ([PROMOTE], PHASE, "has stopped, so it cannot be given other weights"),
        ([PROMOTE], SHARE, "has stopped, so it cannot be given another share"),
        ([PROMOTE], lambda it: it.stop("tone", "ann", "aborted"), r"ended already \(promoted\)"),
    ],
)
def test_what_the_state_does_not_allow_is_refused_and_changes_nothing(
    lifecycle: Lifecycle, before: list[Change], change: Change, words: str
) -> None:
    lifecycle.create(experiment(share=50), by="ann")
    for each in before:
        each(lifecycle)
    was, generation = lifecycle.standing("tone"), lifecycle.generation()
    with pytest.raises(Conflict, match=words) as refused:
        change(lifecycle)
    assert refused.value.fix
    assert (lifecycle.standing("tone"), lifecycle.generation()) == (was, generation)


def test_an_unknown_name_is_missing_and_the_known_ones_are_named(lifecycle: Lifecycle) -> None:
    with pytest.raises(Missing, match="there is none yet"):
        lifecycle.standing("nobody")
    lifecycle.create(experiment(), by="ann")
    for change in (lifecycle.standing, lambda name: lifecycle.stop(name, "ann")):
        with pytest.raises(Missing, match="Use one of: tone"):
            change("nobody")


def test_a_name_is_taken_for_ever(lifecycle: Lifecycle) -> None:
    lifecycle.create(experiment(), by="ann")
    lifecycle.stop("tone", "ann")
    with pytest.raises(Conflict, match="named 'tone' already") as refused:
        lifecycle.create(experiment(), by="ann")
    assert refused.value.field == "name"


def test_whoever_has_read_an_older_revision_is_told(lifecycle: Lifecycle) -> None:
    read = lifecycle.create(experiment(share=20), by="ann")
    lifecycle.change_share("tone", 30, "bob", expected_revision=read.revision)
    for change in (
        lambda: lifecycle.pause("tone", "ann", read.revision),
        lambda: lifecycle.stop("tone", "ann", "stopped", None, read.revision),
        lambda: lifecycle.begin_phase("tone", {}, by="ann", expected_revision=read.revision),
    ):
        with pytest.raises(Conflict, match="at revision 2, not 1: it was changed by bob"):
            change()


def test_weights_begin_a_phase_and_a_canarys_step(
    lifecycle: Lifecycle, clock: ManualClock, database: Database
) -> None:
    lifecycle.create(canary(), by="ann")
    clock.advance(600)
    before = lifecycle.standing("safe")
    changed = lifecycle.begin_phase(
        "safe", {"old": 75, "new": 25}, step=1, by="rollout", expected_revision=before.revision
    )
    assert changed == canary(
        control=Variant("old", "v1", 75), treatments=(Variant("new", "v2", 25),), phase=1
    )
    standing = lifecycle.standing("safe")
    assert (standing.step, standing.experiment) == (1, changed)
    assert standing.step_started_at == START + timedelta(seconds=600)
    assert standing.started_at == START
    assert phases(database, "safe") == {0: {"old": 95, "new": 5}, 1: {"old": 75, "new": 25}}
    assert lifecycle.begin_phase("safe", {"old": 75, "new": 25}, step=1, by="rollout") == changed
    assert lifecycle.standing("safe") == standing


@pytest.mark.parametrize(
    ("weights", "step", "field"),
    [
        ({"old": 75, "new": 24}, 1, "weights"),
        ({"old": 75, "nobody": 25}, 1, "weights.nobody"),
        ({"old": float("nan"), "new": 25}, 1, "weights.old"),
        ({"old": 75, "new": 25}, 3, "step"),
    ],
)
def test_weights_that_cannot_be_are_refused(
    lifecycle: Lifecycle, weights: dict[str, float], step: int, field: str
) -> None:
    created = lifecycle.create(canary(), by="ann")
    with pytest.raises(Invalid) as refused:
        lifecycle.begin_phase("safe", weights, step=step, by="rollout")
    assert refused.value.field == field
    assert lifecycle.standing("safe") == created


def test_a_shadow_experiment_is_live_and_assigns_nobody(lifecycle: Lifecycle) -> None:
    lifecycle.create(experiment(), by="ann")
    lifecycle.create(shadow(), by="ann")
    assert [each.name for each in lifecycle.live()] == ["silent", "tone"]
    assert [each.name for each in lifecycle.assigned()[1]] == ["tone"]
    with pytest.raises(Invalid, match="no weights"):
        lifecycle.begin_phase("silent", {"old": 100}, by="ann")


def test_units_belong_to_one_experiment(lifecycle: Lifecycle) -> None:
    lifecycle.create(experiment(share=50), by="ann")
    later = experiment(name="later", share=40, share_from=50)
    with pytest.raises(Conflict, match="both want the units from 40 to 50 %") as refused:
        lifecycle.create(replace(later, share_from=40), by="ann")
    assert refused.value.field == "experiments[later].share_from"
    lifecycle.create(replace(later, name="draft", salt="draft", share_from=0), by="ann", start=False)
    with pytest.raises(Conflict, match="both want"):
        lifecycle.start("draft", "ann")
    lifecycle.create(later, by="ann")
    lifecycle.pause("later", "ann")
    with pytest.raises(Conflict, match="both want the units from 50 to 60 %"):
        lifecycle.change_share("tone", 60, "ann")
    with pytest.raises(Invalid) as out:
        lifecycle.change_share("tone", 0, "ann")
    assert out.value.field == "share"
    lifecycle.stop("later", "ann")
    assert lifecycle.change_share("tone", 60, "ann").experiment.share == 60
    assert states(lifecycle) == {"draft": "draft", "later": "stopped", "tone": "running"}


def test_share_and_weights_may_change_together(lifecycle: Lifecycle) -> None:
    lifecycle.create(experiment(share=50), by="ann")
    weights = {"champion": 10, "challenger": 90}
    changed = lifecycle.begin_phase("tone", weights, share=80, by="ann")
    assert (changed.share, changed.phase) == (80, 1)
    only_share = lifecycle.begin_phase("tone", weights, share=90, by="ann")
    assert (only_share.share, only_share.phase) == (90, 1)


# --- The settings file ------------------------------------------------------------------------------------------------


def test_a_new_block_starts_and_one_that_is_gone_ends(lifecycle: Lifecycle, clock: ManualClock) -> None:
    assert lifecycle.apply_file([experiment(), canary(endpoint="other")], by=FILE) == ["safe", "tone"]
    assert lifecycle.standing("tone").source == "file"
    generation = lifecycle.generation()
    assert lifecycle.apply_file([experiment(), canary(endpoint="other")], by=FILE) == []
    assert lifecycle.generation() == generation
    clock.advance(5)
    lifecycle.create(experiment(name="own", endpoint="third"), by="ann")
    assert lifecycle.apply_file([experiment()], by=FILE) == ["safe"]
    gone = lifecycle.standing("safe")
    assert (gone.state, gone.outcome, gone.changed_by) == ("stopped", "removed", FILE)
    assert gone.reason == "It is not in servelens.yaml any more."
    assert lifecycle.apply_file([experiment()], by=FILE) == []
    assert states(lifecycle) == {"own": "running", "safe": "removed", "tone": "running"}


def test_a_block_that_did_not_change_leaves_alone_what_others_have_done(lifecycle: Lifecycle) -> None:
    blocks = [
        experiment(share=50),
        canary(endpoint="other"),
        experiment(name="ended", endpoint="third"),
    ]
    lifecycle.apply_file(blocks, by=FILE)
    lifecycle.begin_phase("tone", {"champion": 20, "challenger": 80}, by="ann")
    lifecycle.change_share("tone", 60, "ann")
    lifecycle.begin_phase("safe", {"old": 75, "new": 25}, step=1, by="rollout")
    lifecycle.pause("safe", "bob")
    lifecycle.stop("ended", "ann", "promoted")
    before, generation = lifecycle.standings(), lifecycle.generation()
    assert lifecycle.apply_file(blocks, by=FILE) == []
    assert (lifecycle.standings(), lifecycle.generation()) == (before, generation)


def test_a_changed_block_changes_what_may_change(lifecycle: Lifecycle, database: Database) -> None:
    lifecycle.apply_file([experiment(share=10)], by=FILE)
    assert lifecycle.apply_file([experiment(share=20)], by=FILE) == ["tone"]
    assert lifecycle.standing("tone").experiment.share == 20
    ramped = experiment(share=30).with_weights({"champion": 20, "challenger": 80})
    lifecycle.apply_file([ramped], by=FILE)
    assert lifecycle.standing("tone").experiment == ramped
    assert phases(database, "tone")[1] == {"champion": 20, "challenger": 80}


def test_a_share_in_the_file_does_not_undo_the_weights_of_others(lifecycle: Lifecycle) -> None:
    lifecycle.apply_file([experiment(share=10), canary(endpoint="other", share=10)], by=FILE)
    lifecycle.begin_phase("tone", {"champion": 20, "challenger": 80}, by="ann")
    lifecycle.begin_phase("safe", {"old": 50, "new": 50}, step=2, by="rollout")
    assert lifecycle.apply_file([experiment(share=40), canary(endpoint="other", share=40)], by=FILE) == [
        "safe",
        "tone",
    ]
    tone, safe = lifecycle.standing("tone"), lifecycle.standing("safe")
    assert (tone.experiment.share, tone.experiment.phase, tone.experiment.control.weight) == (40, 1, 20)
    assert (safe.experiment.share, safe.experiment.phase, safe.step) == (40, 1, 2)
    assert safe.experiment.control.weight == 50


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        (experiment(alpha=0.1), "experiments[tone].alpha"),
        (experiment(unit="session"), "experiments[tone].unit"),
        (experiment(guardrails=(Guardrail("error_rate", 0.01),)), "experiments[tone].guardrails"),
        (experiment(control=Variant("champion", "other", 50)), "experiments[tone].control"),
        (experiment(prices=(Price("smol", 1, 2),)), "experiments[tone].prices"),
        (
            experiment(
                control=Variant("champion", "smol", 20), treatments=(Variant("challenger", "smol-hot", 80),)
            ),
            "experiments[tone].weight",
        ),
    ],
)
def test_a_block_that_would_spoil_the_analysis_is_refused_and_the_others_are_applied(
    lifecycle: Lifecycle, wanted: Experiment, field: str
) -> None:
    lifecycle.apply_file([experiment(), experiment(name="leaves", endpoint="x")], by=FILE)
    blocks = [wanted, experiment(name="new", endpoint="other")]
    for _ in range(2):
        with pytest.raises(Conflict) as refused:
            lifecycle.apply_file(blocks, by=FILE)
        assert refused.value.field == field
        assert refused.value.fix
        assert lifecycle.standing("tone").experiment == experiment()
        assert lifecycle.standing("tone").revision == 1
        assert states(lifecycle) == {"leaves": "removed", "new": "running", "tone": "running"}
    assert lifecycle.apply_file([experiment(), blocks[1]], by=FILE) == []


def test_all_that_is_refused_is_named(lifecycle: Lifecycle) -> None:
    other = experiment(name="other", endpoint="x")
    lifecycle.apply_file([experiment(), other], by=FILE)
    with pytest.raises(Conflict, match=r"experiments\[tone\]\.alpha.*experiments\[other\]\.alpha"):
        lifecycle.apply_file([experiment(alpha=0.1), replace(other, alpha=0.1)], by=FILE)


def test_a_canarys_phases_are_not_the_files(lifecycle: Lifecycle) -> None:
    lifecycle.apply_file([canary()], by=FILE)
    with pytest.raises(Conflict) as refused:
        lifecycle.apply_file([canary(phase=1)], by=FILE)
    assert refused.value.field == "experiments[safe].phase"


def test_a_rollout_may_begin_in_earnest_and_keeps_its_steps(lifecycle: Lifecycle) -> None:
    steps = canary().rollout
    assert steps is not None
    lifecycle.apply_file([canary(rollout=replace(steps, dry_run=True))], by=FILE)
    lifecycle.begin_phase("safe", {"old": 75, "new": 25}, step=1, by="rollout")
    lifecycle.apply_file([canary()], by=FILE)
    standing = lifecycle.standing("safe")
    assert standing.experiment.rollout == steps
    assert (standing.experiment.phase, standing.step) == (1, 1)
    with pytest.raises(Conflict) as refused:
        lifecycle.apply_file([canary(rollout=Ramp((Step(5), Step(10))))], by=FILE)
    assert refused.value.field == "experiments[safe].rollout.steps"


def test_a_stopped_experiment_is_never_started_again(lifecycle: Lifecycle) -> None:
    lifecycle.apply_file([experiment(share=10), experiment(name="gone", endpoint="x")], by=FILE)
    lifecycle.stop("tone", "rollout", "rolled_back", "worse")
    assert lifecycle.apply_file([experiment(share=10)], by=FILE) == ["gone"]
    for blocks, name in (
        ([experiment(share=20)], "tone"),
        ([experiment(share=10), experiment(name="gone", endpoint="x")], "gone"),
    ):
        with pytest.raises(Conflict, match=f"'{name}' has stopped.*new name"):
            lifecycle.apply_file(blocks, by=FILE)
    assert states(lifecycle) == {"gone": "removed", "tone": "rolled_back"}


def test_units_move_from_block_to_block_in_one_go(lifecycle: Lifecycle) -> None:
    first = experiment(name="a", share=60)
    second = experiment(name="b", share=40, share_from=60)
    lifecycle.apply_file([first, second], by=FILE)
    third = experiment(name="c", share=20, share_from=40)
    lifecycle.apply_file([third, replace(first, share=40), second], by=FILE)
    assert [(each.name, each.share) for each in lifecycle.live()] == [("a", 40), ("b", 40), ("c", 20)]
    lifecycle.apply_file([experiment(name="d", share=40), third, second], by=FILE)
    assert states(lifecycle) == {"a": "removed", "b": "running", "c": "running", "d": "running"}


def test_a_block_may_not_take_the_units_of_an_experiment_made_by_api(lifecycle: Lifecycle) -> None:
    lifecycle.create(experiment(name="own"), by="ann")
    for _ in range(2):
        with pytest.raises(Conflict, match="'own' and 'tone' both want"):
            lifecycle.apply_file([experiment()], by=FILE)
    lifecycle.stop("own", "ann")
    assert lifecycle.apply_file([experiment()], by=FILE) == ["tone"]


def test_the_file_takes_over_what_was_made_by_api(lifecycle: Lifecycle) -> None:
    lifecycle.create(experiment(), by="ann")
    lifecycle.create(experiment(name="draft", endpoint="x"), by="ann", start=False)
    blocks = [experiment(), experiment(name="draft", endpoint="x", alpha=0.1)]
    assert lifecycle.apply_file(blocks, by=FILE) == ["draft", "tone"]
    assert {each.source for each in lifecycle.standings()} == {"file"}
    assert lifecycle.standing("draft").state == "running"
    assert lifecycle.standing("draft").experiment.alpha == 0.1
    assert lifecycle.apply_file([], by=FILE) == ["draft", "tone"]


def older_release(database: Database, definition: Experiment, state: str = "running") -> None:
    """An experiment as it was kept before there were lifecycles, without what was not known then."""
    known = ("name", "endpoint", "control", "treatments", "primary_metric", "secondary_metrics", "kind")
    more = ("unit", "share", "salt", "phase", "alpha", "planned_units")
    written = definition.to_dict()
    with database.session() as session:
        session.add(
            ExperimentRow(
                name=definition.name,
                endpoint=definition.endpoint,
                definition={name: written[name] for name in (*known, *more)},
                state=state,
                started_at=START,
                stopped_at=START if state == "stopped" else None,
            )
        )
        session.flush()
        weights = {variant.name: variant.weight for variant in definition.variants}
        session.add(PhaseRow(experiment=definition.name, phase=0, weights=weights, started_at=START))


def test_experiments_of_an_older_release_go_on(
    lifecycle: Lifecycle, database: Database, clock: ManualClock
) -> None:
    older_release(database, experiment())
    older_release(database, experiment(name="left", endpoint="x"))
    older_release(database, experiment(name="done", endpoint="y"), state="stopped")
    assert lifecycle.generation() == 0
    assert [each.name for each in lifecycle.assigned()[1]] == ["left", "tone"]
    found = lifecycle.standing("tone")
    assert (found.source, found.step, found.revision, found.changed_by) == ("file", 0, 0, "file")
    assert found.step_started_at == START
    clock.advance(60)
    blocks = [experiment(), experiment(name="done", endpoint="y")]
    assert lifecycle.apply_file(blocks, by=FILE) == ["done", "left", "tone"]
    assert states(lifecycle) == {"done": "stopped", "left": "removed", "tone": "running"}
    assert lifecycle.standing("tone").started_at == START
    assert lifecycle.generation() == 1
    assert lifecycle.apply_file(blocks, by=FILE) == []
    lifecycle.apply_file([experiment(share=50), blocks[1]], by=FILE)
    assert lifecycle.standing("tone").experiment.share == 50


def test_a_definition_that_cannot_be_read_keeps_no_other_from_running(
    lifecycle: Lifecycle, database: Database
) -> None:
    lifecycle.create(experiment(), by="ann")
    lifecycle.create(experiment(name="newer", endpoint="x"), by="ann")
    with database.session() as session:
        row = session.get_one(ExperimentRow, "newer")
        row.definition = {**row.definition, "of_a_later_release": 1}
    assert [each.name for each in lifecycle.assigned()[1]] == ["tone"]
    assert [each.experiment.name for each in lifecycle.standings()] == ["tone"]
    with pytest.raises(Invalid, match="'newer' is not valid"):
        lifecycle.standing("newer")
    with pytest.raises(Conflict, match="both want"):
        lifecycle.create(experiment(name="third"), by="ann")


def test_a_look_puts_back_no_older_share_or_weights(lifecycle: Lifecycle, database: Database) -> None:
    lifecycle.create(experiment(share=10), by="ann")
    lifecycle.begin_phase("tone", {"champion": 20, "challenger": 80}, share=30, by="ann")
    now = lifecycle.standing("tone")
    ExperimentStore(database, ManualClock(START)).register(experiment(share=10))
    assert lifecycle.standing("tone") == now


# --- Several at once --------------------------------------------------------------------------------------------------


def test_workers_that_start_together_apply_the_file_once(
    database_url: str, database: Database, lifecycle: Lifecycle
) -> None:
    blocks = [experiment(name=f"e{number}", endpoint=f"chat-{number}") for number in range(5)]
    start = threading.Barrier(6)

    def apply(_: int) -> list[str]:
        own = Database(database_url)
        try:
            start.wait(30)
            return Lifecycle(own, ManualClock(START)).apply_file(blocks, by=FILE)
        finally:
            own.dispose()

    with ThreadPoolExecutor(6) as pool:
        applied = [names for names in pool.map(apply, range(6)) if names]
    assert applied == [[f"e{number}" for number in range(5)]]
    assert lifecycle.generation() == 1
    assert all(each.revision == 1 for each in lifecycle.standings())


def test_of_two_who_want_the_same_units_one_gets_them(lifecycle: Lifecycle, other: Lifecycle) -> None:
    start = threading.Barrier(2)

    def create(at: tuple[Lifecycle, str]) -> str:
        start.wait(30)
        try:
            at[0].create(experiment(name=at[1]), by=at[1])
        except Conflict as conflict:
            return conflict.message
        return "created"

    with ThreadPoolExecutor(2) as pool:
        outcomes = sorted(pool.map(create, [(lifecycle, "a"), (other, "b")]))
    assert len(lifecycle.live()) == 1
    assert outcomes[1] == "created"
    assert "both want" in outcomes[0]


def test_changes_at_once_lose_nothing_and_have_an_order(
    lifecycle: Lifecycle, other: Lifecycle, database: Database
) -> None:
    count = 24
    lifecycle.create(experiment(), by="ann")

    def change(number: int) -> None:
        at = lifecycle if number % 2 else other
        at.begin_phase("tone", {"champion": number, "challenger": 100 - number}, by=str(number))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(change, range(1, 1 + count)))
    standing = lifecycle.standing("tone")
    assert (standing.experiment.phase, standing.revision) == (count, 1 + count)
    assert lifecycle.generation() == 1 + count
    kept = phases(database, "tone")
    assert sorted(kept) == list(range(1 + count))
    assert {weights["champion"] for weights in kept.values()} == {50.0, *range(1, 1 + count)}


def test_only_one_of_those_who_have_read_the_same_revision_changes_it(
    lifecycle: Lifecycle, other: Lifecycle
) -> None:
    read = lifecycle.create(canary(), by="ann")
    start = threading.Barrier(2)

    def advance(at: Lifecycle) -> bool:
        start.wait(30)
        try:
            at.begin_phase(
                "safe", {"old": 75, "new": 25}, step=1, by="rollout", expected_revision=read.revision
            )
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(advance, (lifecycle, other))) == [False, True]
    assert lifecycle.standing("safe").experiment.phase == 1


def test_a_reader_that_has_seen_a_number_has_seen_everything_up_to_it(
    lifecycle: Lifecycle, other: Lifecycle
) -> None:
    lifecycle.create(experiment(), by="ann")
    done = threading.Event()
    missed: list[tuple[int, int]] = []

    def read() -> None:
        while not done.is_set():
            generation, (assigned,) = other.assigned()
            if 1 + assigned.phase < generation:
                missed.append((generation, assigned.phase))

    with ThreadPoolExecutor(3) as pool:
        reading = pool.submit(read)

        def change(weight: int) -> None:
            lifecycle.begin_phase("tone", {"champion": weight, "challenger": 100 - weight}, by="ann")

        list(pool.map(change, range(1, 30)))
        done.set()
        reading.result(30)
    assert missed == []


_CHANGER = """
import sys
from experiments.lifecycle import Lifecycle
from servelens.clock import SystemClock
from servelens.database import Database
lifecycle = Lifecycle(Database(sys.argv[1]), SystemClock())
print("ready", flush=True)
number = 0
while True:
    weight = 1 + number % 98
    lifecycle.begin_phase("safe", {"old": 100 - weight, "new": weight}, step=number % 3, by="killed")
    number += 1
"""


def test_a_process_that_is_killed_has_made_each_change_whole_or_not_at_all(
    lifecycle: Lifecycle, database: Database, database_url: str
) -> None:
    lifecycle.create(canary(), by="ann")
    for _ in range(3):
        before = lifecycle.generation()
        with subprocess.Popen(
            [sys.executable, "-c", _CHANGER, database_url], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            while lifecycle.generation() < before + 5:
                assert process.poll() is None
            os.kill(process.pid, signal.SIGKILL)
        standing = lifecycle.standing("safe")
        assert lifecycle.generation() == standing.revision == 1 + standing.experiment.phase
        kept = phases(database, "safe")
        assert sorted(kept) == list(range(1 + standing.experiment.phase))
        assert kept[standing.experiment.phase] == {
            variant.name: variant.weight for variant in standing.experiment.variants
        }
        with database.session(read_only=True) as session:
            (row,) = session.scalars(select(LifecycleRow)).all()
            started = session.get_one(PhaseRow, ("safe", standing.experiment.phase)).started_at
        assert row.step_started_at == started
    assert lifecycle.stop("safe", "ann", "aborted").outcome == "aborted"
