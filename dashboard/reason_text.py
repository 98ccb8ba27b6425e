"""Why a case was flagged, in words: one sentence for each kind of reason, and a few words for lists."""

from __future__ import annotations

from dashboard import formats
from relabel.case import Reason, ReasonKind

TITLES: dict[ReasonKind, str] = {
    ReasonKind.SCORE: "Score past a threshold",
    ReasonKind.SCORE_LABEL: "Label of an evaluator",
    ReasonKind.UNSCORED: "Could not be scored",
    ReasonKind.LOW_CONFIDENCE: "Evaluator unsure",
    ReasonKind.SHADOW_DISAGREEMENT: "Shadow disagrees",
    ReasonKind.EVALUATOR_DISAGREEMENT: "Evaluators disagree",
    ReasonKind.FEEDBACK: "User feedback",
    ReasonKind.DRIFT: "Drifted slice",
    ReasonKind.RANDOM: "Random sample",
    ReasonKind.MANUAL: "Added by hand",
}


def sentence(reason: Reason) -> tuple[str, str]:
    """What was seen, for people: the words that matter most, and the rest of the sentence."""
    match reason.kind:
        case ReasonKind.SCORE:
            side = "over" if reason.direction == "above" else "under"
            lead = f"{_evaluator(reason)} {formats.significant(reason.score)}"
            return lead, f" of the {_target(reason)}, {side} {formats.significant(reason.threshold)}"
        case ReasonKind.SCORE_LABEL:
            return f"{_evaluator(reason)}: {reason.label or 'a label'}", f" was said of the {_target(reason)}"
        case ReasonKind.UNSCORED:
            words = (reason.detail or f"by {_evaluator(reason)}").replace("_", " ")
            return "Could not be scored", f": {words}"
        case ReasonKind.LOW_CONFIDENCE:
            score = None if reason.score is None else formats.significant(reason.score)
            words = ", ".join(filter(None, (score, reason.detail)))
            return f"{_evaluator(reason)} is unsure of the {_target(reason)}", f": {words}" if words else ""
        case ReasonKind.SHADOW_DISAGREEMENT:
            return "The shadow answered differently", _detail(reason)
        case ReasonKind.EVALUATOR_DISAGREEMENT:
            return "Evaluators disagree", _detail(reason) or f" about the {_target(reason)}"
        case ReasonKind.FEEDBACK:
            return "A user was not satisfied", _detail(reason)
        case ReasonKind.DRIFT:
            return "From a slice that has drifted", _detail(reason)
        case ReasonKind.RANDOM:
            drawn = f" ({reason.detail})" if reason.detail else ""
            return "Drawn at random", f", to see what the other rules miss{drawn}"
        case ReasonKind.MANUAL:
            return "Added by hand", _detail(reason)


def brief(reason: Reason) -> str:
    """The reason in a list."""
    match reason.kind:
        case ReasonKind.SCORE:
            return f"{_evaluator(reason)} {formats.significant(reason.score)}"
        case ReasonKind.SCORE_LABEL:
            return f"{_evaluator(reason)}: {reason.label or 'a label'}"
        case ReasonKind.UNSCORED | ReasonKind.LOW_CONFIDENCE:
            return f"{_evaluator(reason)} {'unscored' if reason.kind is ReasonKind.UNSCORED else 'unsure'}"
        case _:
            return TITLES[reason.kind].lower()


def _evaluator(reason: Reason) -> str:
    return reason.evaluator or "The evaluator"


def _target(reason: Reason) -> str:
    return reason.target or "response"


def _detail(reason: Reason) -> str:
    return f": {reason.detail}" if reason.detail else ""
