"""What may change of an experiment that has started: its share, its weights with a new phase, and who hears of a
rollout or how a bandit moves.

The share moves no unit between variants, and phases are analysed apart; everything else would change what the
analysis rests on or where a canary stands, and is refused by name.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Final

from experiments.experiment import Experiment
from servelens.errors import Conflict

_MAY_CHANGE: Final = frozenset({"name", "control", "treatments", "share", "phase", "rollout", "bandit"})


def weights_of(experiment: Experiment) -> dict[str, float]:
    """The weights in percent, by variant."""
    return {variant.name: variant.weight for variant in experiment.variants}


def refuse_frozen(known: Experiment, wanted: Experiment) -> None:
    """Raise :class:`~servelens.errors.Conflict`, naming the field, when ``wanted`` differs in more than may
    change.
    """
    path = f"experiments[{wanted.name}]"
    for each in fields(Experiment):
        if each.init and each.name not in _MAY_CHANGE:
            old, new = getattr(known, each.name), getattr(wanted, each.name)
            if old != new:
                raise _frozen(f"{path}.{each.name}", old, new)
    if known.rollout and wanted.rollout and known.rollout.steps != wanted.rollout.steps:
        raise _frozen(f"{path}.rollout.steps", known.rollout.steps, wanted.rollout.steps)
    old_arms, new_arms = _arms(known), _arms(wanted)
    if old_arms[0] != new_arms[0]:
        raise _frozen(f"{path}.control", old_arms[0], new_arms[0])
    if old_arms != new_arms:
        raise _frozen(f"{path}.treatments", old_arms[1:], new_arms[1:])


def reconciled(
    known: Experiment, wanted: Experiment, phases: Mapping[int, Mapping[str, float]]
) -> Experiment:
    """``known`` with what a changed block of the settings file, ``wanted``, may change of it.

    ``phases`` are the weights of all phases so far. A block whose phase has already been, with these weights,
    says nothing new about weights: whatever a person, a rollout or a bandit has made of them since then stays.
    Raises :class:`~servelens.errors.Conflict`, naming the field.
    """
    refuse_frozen(known, wanted)
    path = f"experiments[{wanted.name}]"
    weights = weights_of(wanted)
    if wanted.phase > known.phase:
        if wanted.kind != "ab":
            raise Conflict(
                f"the phases of a {wanted.kind} are begun by itself; it is in phase {known.phase}",
                field=f"{path}.phase",
                fix="Leave it out.",
            )
        return replace(
            known,
            control=wanted.control,
            treatments=wanted.treatments,
            share=wanted.share,
            phase=wanted.phase,
        )
    before = phases.get(wanted.phase, weights_of(known) if wanted.phase == known.phase else None)
    if before != weights:
        raise Conflict(
            f"the weights changed from {before} to {weights} within phase {wanted.phase}"
            if before is not None
            else f"the phase is {known.phase} already and cannot go back to {wanted.phase}",
            field=f"{path}.weight" if before is not None else f"{path}.phase",
            fix=f"Raise phase to {known.phase + 1}, so that old and new traffic are analysed apart."
            if wanted.kind == "ab"
            else "Put them back: they are its first ones, and it moves them itself.",
        )
    return replace(known, share=wanted.share, rollout=wanted.rollout, bandit=wanted.bandit)


def definition_digest(experiment: Experiment) -> str:
    """The same for equal definitions, also in a later release: what has its default does not count, so that a
    field that is added later changes no digest.
    """
    return hashlib.sha256(json.dumps(_given(experiment), sort_keys=True).encode()).hexdigest()


def _given(value: Any) -> Any:
    if is_dataclass(value):
        return {
            each.name: _given(getattr(value, each.name))
            for each in fields(value)
            if each.init and getattr(value, each.name) != each.default
        }
    if isinstance(value, tuple):
        return [_given(each) for each in value]
    return value


def _arms(experiment: Experiment) -> tuple[tuple[str, str], ...]:
    return tuple((variant.name, variant.served_entity) for variant in experiment.variants)


def _frozen(field: str, old: object, new: object) -> Conflict:
    return Conflict(
        f"it was {old!r} when the experiment started and cannot become {new!r}",
        field=field,
        fix="Put it back, or stop this experiment and start another one under a new name.",
    )
