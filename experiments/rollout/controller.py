"""Carries out what :func:`~experiments.rollout.decision.decide` says, and writes down what was done and why.

Invariant: a crash between any two writes is repaired by the next run. A decision is in the log before it is
carried out (``begun``), so the next run finds it:

* an advance is one transaction of the lifecycle: it has happened or not. If not, it is decided anew;
* what ends the experiment is finished as it was decided, since half of a promotion may have been done: moving
  a route and stopping are both without effect the second time;
* what was done and not told is told (again), under the same id.

Somebody who changes the experiment at the same time wins: what was decided is dropped and decided anew on what
is there then. Only a roll-back and a person's abort wait for nobody, neither for another change nor for a
webhook: they are carried out first and told afterwards, for they can only take harm away.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from experiments.decision_log import DecisionLog, Entry, Logged
from experiments.experiment import Experiment
from experiments.ramp import Webhook
from experiments.report import plain
from experiments.rollout.decision import Cause, Decision, Progress, decide
from experiments.rollout.evidence import DECIDED_ON, Look, evidence_of, to_json
from experiments.rollout.lifecycle import OUTCOMES, Lifecycle, Promote, Standing
from experiments.rollout.webhooks import Answer, Webhooks, decision_id
from servelens.clock import Clock
from servelens.errors import Conflict, Invalid, Missing

logger = logging.getLogger(__name__)

ACTOR: Final = "rollout"
_WAITS_FOR_NOBODY: Final = ("roll_back", "abort")
_LIVE: Final = ("running", "paused")


class Controller:
    """Takes canaries up their ramps, or back. One process runs :meth:`step`; people's words may come by another."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        log: DecisionLog,
        promote: Promote,
        clock: Clock,
        *,
        webhooks: Webhooks,
        code_version: str,
    ) -> None:
        self._lifecycle = lifecycle
        self._log = log
        self._promote = promote
        self._clock = clock
        self._webhooks = webhooks
        self._code_version = code_version

    def step(self, standing: Standing, look: Look | None) -> Decision:
        """Decide on a canary after an analysis (``None``: there is none yet), and carry it out.

        Gives what was decided, or the hold that it became (a webhook, a conflict). Raises
        :class:`~servelens.errors.Invalid` for an experiment without a rollout and
        :class:`~servelens.errors.Unavailable` when the database does not answer: the next run goes on from there.
        """
        experiment = standing.experiment
        ramp = experiment.rollout
        if ramp is None:
            raise Invalid(
                f"experiment {experiment.name!r} has no rollout", field="kind", fix="Use kind: canary."
            )
        if self.recover(experiment.name):
            standing = self._lifecycle.standing(experiment.name)
            experiment = standing.experiment
        if standing.state not in _LIVE:
            return Decision("hold", standing.step, "ended", f"the experiment is {_state_words(standing)}")
        evidence = evidence_of(experiment, look)
        progress, now = _progress(standing), self._clock.now()
        decision = decide(ramp, progress, evidence, now)
        kept = to_json(ramp, progress, evidence, now, look, self._code_version)
        if ramp.dry_run or not decision.changes:
            self._log.append(experiment.name, _entry(standing, decision, ACTOR, kept, dry_run=ramp.dry_run))
            return decision
        return self._carry_out(standing, decision, ACTOR, kept)

    def promote(self, name: str, by: str, reason: str) -> Decision:
        """A person's word: the only treatment takes the control's place, whatever the guardrails say.

        A ``hold`` says which webhook refused, or what stood in the way. Raises
        :class:`~servelens.errors.Conflict` when the experiment is not live and
        :class:`~servelens.errors.Invalid` when it has several treatments.
        """
        standing = self._live(name)
        if len(standing.experiment.treatments) != 1:
            raise Invalid(
                f"experiment {name!r} has {len(standing.experiment.treatments)} treatments, so nobody knows which to promote",
                field="name",
                fix="Stop it, and change the endpoint's routes.",
            )
        decision = Decision("promote", standing.step, "person", f"{by}: {reason}", weight=100.0)
        return self._carry_out(standing, decision, by, {"code_version": self._code_version})

    def abort(self, name: str, by: str, reason: str) -> Decision:
        """A person's word: all traffic goes back to the control. No webhook can hold it.

        Raises :class:`~servelens.errors.Conflict` when the experiment is not live.
        """
        standing = self._live(name)
        decision = Decision("abort", standing.step, "person", f"{by}: {reason}", weight=0.0)
        return self._carry_out(standing, decision, by, {"code_version": self._code_version})

    def recover(self, name: str | None = None) -> int:
        """Finish what a crash cut in two, of one experiment or of all; gives how many decisions that were.

        To be called now and then for all, since nobody takes a step of an experiment that has ended.
        """
        rows = self._log.unsettled(name)
        for row in rows:
            self._recover(row)
        return len(rows)

    def _live(self, name: str) -> Standing:
        self.recover(name)
        standing = self._lifecycle.standing(name)
        if standing.state not in _LIVE:
            raise Conflict(
                f"experiment {name!r} is {_state_words(standing)}",
                field="name",
                fix="Only a live one can be ended.",
            )
        return standing

    def _carry_out(self, standing: Standing, decision: Decision, by: str, kept: dict[str, Any]) -> Decision:
        experiment = standing.experiment
        entry = _entry(standing, decision, by, kept)
        if decision.kind not in _WAITS_FOR_NOBODY:
            answers = self._webhooks.ask(_webhooks(experiment), self._document(experiment, entry))
            refusals = [answer.words() for answer in answers if not answer.ok]
            if refusals:
                held = f"held by {' and '.join(refusals)}; wanted: {decision.kind}, because {decision.reason}"
                return self._hold(standing, decision, by, "webhook", held, {**kept, "webhooks": answers})
            entry = _with(entry, webhooks=answers)
        row = self._log.append(experiment.name, _with(entry, progress="begun"))
        refusal = self._apply(standing, row)
        if refusal is not None:
            return refusal
        self._announce(experiment, self._log.settle(row.id, "applied"))
        logger.info(
            "experiment decided: experiment=%s decision=%s by=%s reason=%s",
            experiment.name,
            decision.kind,
            by,
            decision.reason,
        )
        return decision

    def _apply(self, standing: Standing, row: Logged) -> Decision | None:
        """Change the lifecycle, and the route; the hold it became when somebody or something stands in the way."""
        cause: Cause
        try:
            if row.decision == "advance":
                self._advance(standing, row)
            else:
                self._end(standing, row)
        except Conflict as error:
            cause, why = "conflict", f"it does not fit what is there now: {error}"
        except (Missing, Invalid) as error:
            cause, why = "failed", f"it cannot be done: {error}"
        else:
            return None
        self._log.settle(row.id, "failed", failure=why)
        logger.warning(
            "experiment decision not carried out: experiment=%s decision=%s: %s",
            row.experiment,
            row.decision,
            why,
        )
        return Decision("hold", row.step, cause, f"{why}; wanted: {row.decision}, because {row.reason}")

    def _advance(self, standing: Standing, row: Logged) -> None:
        self._lifecycle.begin_phase(
            row.experiment,
            dict(row.evidence["weights"]),
            step=row.evidence["to_step"],
            by=row.by,
            expected_revision=standing.revision,
        )

    def _end(self, standing: Standing, row: Logged) -> None:
        experiment, outcome = standing.experiment, OUTCOMES[row.decision]
        expected: int | None = standing.revision
        if row.decision == "promote":
            self._unchanged(standing)
            self._promote(
                experiment.endpoint,
                experiment.control.served_entity,
                experiment.treatments[0].served_entity,
                row.by,
            )
        if row.decision == "promote" or row.decision in _WAITS_FOR_NOBODY:
            expected = None  # the route has moved, or harm is being done: a pause or a share changes nothing
        self._lifecycle.stop(row.experiment, row.by, outcome, row.reason, expected_revision=expected)
        ended = self._lifecycle.standing(row.experiment)
        if ended.outcome != outcome:
            moved = " after its route was moved" if row.decision == "promote" else ""
            raise Conflict(
                f"it was {_state_words(ended)}{moved}",
                field="name",
                fix="Look at the endpoint's routes." if moved else None,
            )

    def _unchanged(self, standing: Standing) -> None:
        now = self._lifecycle.standing(standing.experiment.name)
        if now.revision != standing.revision or now.state not in _LIVE:
            raise Conflict(f"{now.changed_by} changed it", field="revision")

    def _recover(self, row: Logged) -> None:
        standing = self._lifecycle.standing(row.experiment)
        if not row.applied and not self._is_done(standing, row):
            gone = standing.state not in _LIVE
            if row.decision == "advance" or gone:
                why = (
                    f"it was {_state_words(standing)} meanwhile" if gone else "interrupted, and decided anew"
                )
                if row.decision == "promote":
                    why += "; its route may have been moved before, so look at the endpoint's routes"
                    logger.warning("experiment half promoted: experiment=%s: %s", row.experiment, why)
                self._log.settle(row.id, "failed", failure=why)
                return
            if self._apply(standing, row) is not None:
                return
        self._announce(standing.experiment, self._log.settle(row.id, "applied"))

    @staticmethod
    def _is_done(standing: Standing, row: Logged) -> bool:
        if row.decision == "advance":
            return standing.experiment.phase > row.phase and standing.step == row.evidence["to_step"]
        return standing.state not in _LIVE and standing.outcome == OUTCOMES[row.decision]

    def _hold(
        self,
        standing: Standing,
        wanted: Decision,
        by: str,
        cause: Cause,
        reason: str,
        kept: dict[str, Any],
    ) -> Decision:
        held = Decision("hold", wanted.step, cause, reason)
        self._log.append(
            standing.experiment.name, _entry(standing, held, by, {**kept, "wanted": wanted.kind})
        )
        return held

    def _announce(self, experiment: Experiment, row: Logged) -> None:
        """Tell the ``after`` hooks, and of what waited for nobody the ``before`` hooks too; keep their answers."""
        document = self._document(experiment, row, at=row.decided_at)
        webhooks = _webhooks(experiment)
        answers: list[Any] = list(row.evidence.get("webhooks", ()))
        told: tuple[Answer, ...] = ()
        if row.decision in _WAITS_FOR_NOBODY:
            told += self._webhooks.ask(webhooks, document)
        told += self._webhooks.tell(webhooks, document)
        for answer in told:
            if not answer.ok:
                logger.warning(
                    "experiment decision not heard: experiment=%s decision=%s %s",
                    experiment.name,
                    row.decision,
                    answer.words(),
                )
        self._log.settle(row.id, "told", webhooks=[*answers, *told])

    def _document(self, experiment: Experiment, entry: Entry, at: datetime | None = None) -> dict[str, Any]:
        evidence = {
            name: value
            for name, value in entry.evidence.items()
            if name not in ("progress", "webhooks", "weights", "since", "looks", DECIDED_ON)
        }
        document: dict[str, Any] = plain(
            {
                "id": decision_id(experiment.name, entry.phase, entry.step, entry.decision, entry.by),
                "experiment": experiment.name,
                "endpoint": experiment.endpoint,
                "decision": entry.decision,
                "by": entry.by,
                "step": entry.step,
                "phase": entry.phase,
                "weights": entry.evidence["weights"],
                "reason": entry.reason,
                "evidence": evidence,
                "at": (at or self._clock.now()).isoformat(),
            }
        )
        return document


def _progress(standing: Standing) -> Progress:
    # A canary that never changed its weights stands at its first step since it was started.
    since = standing.step_started_at
    if since is None and standing.step == 0:
        since = standing.started_at
    return Progress(
        step=standing.step,
        step_started_at=since,
        paused_by=standing.changed_by if standing.state == "paused" else None,
        weight=standing.experiment.treatments[0].weight,
    )


def _entry(
    standing: Standing, decision: Decision, by: str, kept: dict[str, Any], *, dry_run: bool = False
) -> Entry:
    experiment = standing.experiment
    return Entry(
        decision=decision.kind,
        by=by,
        step=decision.step,
        phase=experiment.phase,
        dry_run=dry_run,
        applied=False,
        reason=decision.reason,
        evidence={
            **kept,
            "cause": decision.cause,
            "to_step": decision.to_step,
            "weights": _weights(experiment, decision),
        },
    )


def _with(entry: Entry, **more: Any) -> Entry:
    return replace(entry, evidence={**entry.evidence, **more})


def _weights(experiment: Experiment, decision: Decision) -> dict[str, float]:
    """Each variant's weight in percent once the decision is carried out."""
    weight = decision.weight
    if weight is None:
        return {variant.name: variant.weight for variant in experiment.variants}
    others = {variant.name: 0.0 for variant in experiment.treatments[1:]}
    return {experiment.control.name: 100.0 - weight, experiment.treatments[0].name: weight, **others}


def _webhooks(experiment: Experiment) -> tuple[Webhook, ...]:
    return experiment.rollout.webhooks if experiment.rollout is not None else ()


def _state_words(standing: Standing) -> str:
    state = "a draft" if standing.state == "draft" else standing.state
    return state if standing.outcome is None else f"{state} ({standing.outcome})"
