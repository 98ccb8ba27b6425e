"""What a score of each built-in evaluator says, and what it cannot see, in a sentence each (``docs/evaluators.md`` has more)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

Scale = Literal["share", "number"]


@dataclass(frozen=True, slots=True)
class EvaluatorNote:
    """``scale`` is whether its scores are 0 and 1 or any number (``None``: the data decide); ``flagged`` the label whose
    share says more over time than the score does; ``one`` what a score of 1 means.
    """

    caveat: str = ""
    scale: Scale | None = None
    flagged: str | None = None
    one: str = "scored 1"


_NOTES: Final = {
    "toxicity": EvaluatorNote(
        "Finds rude words well, implied hate hardly, English only: a low score does not clear an answer.",
        "number",
    ),
    "classifier": EvaluatorNote(
        "What its model was trained to tell apart, on texts like those it was trained with: elsewhere it guesses.",
        "number",
    ),
    "perplexity": EvaluatorNote(
        "How surprised a small language model is by the text: lower reads more fluent, not more correct.",
        "number",
    ),
    "embedding": EvaluatorNote(
        "How close the answer is to the prompt in meaning: near is not right, and right need not be near.",
        "number",
    ),
    "length": EvaluatorNote(
        "Words, or characters: Chinese, Japanese and Thai have no words to count.", "number"
    ),
    "language": EvaluatorNote(
        "Probability of the label's language, or of the wanted ones: a few words, and two languages in one text, are hard.",
        "number",
    ),
    "refusal": EvaluatorNote(
        "A rule over usual wording in four languages: polite changes of the subject are missed.",
        flagged="refusal",
    ),
    "json_schema": EvaluatorNote(
        "Whether the answer is JSON of the schema, not whether its values are true.", "share", one="valid"
    ),
    "pattern": EvaluatorNote("Whether the expressions hold: wording, not meaning.", "share", one="ok"),
    "personal_data": EvaluatorNote(
        "Different items that the prompt did not have; names, street addresses and dates of birth are not looked for.",
        "number",
        flagged="leak",
    ),
    "latency": EvaluatorNote(
        "Milliseconds of calls that did not fail; the failed are under error.", "number"
    ),
    "error": EvaluatorNote(
        "Whether the call failed: an answer that is wrong is no error.", "share", one="failed"
    ),
    "judge": EvaluatorNote(
        "A language model's grade by a rubric: compare it with people's labels before you rely on it."
    ),
    "ground_truth": EvaluatorNote(
        "Against the truth that came as feedback: only records with a known truth have a score.",
        one="correct",
    ),
}
_NO_NOTE: Final = EvaluatorNote()

REASONS: Final = {
    "no_text": "the answer has no text",
    "empty": "there is no text",
    "too_short": "the text is too short to be scored",
    "not_finite": "the model gave no number",
    "model_error": "the evaluator failed on it",
    "timed_out": "it took too long",
    "unknown_words": "no word that the model knows",
    "undetermined": "no language is likely enough",
    "no_prompt": "there is no prompt to compare with",
    "failed": "the call failed",
    "not_measured": "the time was not measured",
    "incomplete": "the record is incomplete",
    "payload_too_large": "the text is too large to be kept",
    "judge_nonsense": "the judge's answer is no grade",
    "judge_out_of_range": "the judge's grade is out of range",
    "judge_refused": "the judge would not grade it",
    "judge_cut_off": "the judge's answer was cut off",
    "cost_limit": "the judge has cost what it may",
    "judge_unavailable": "the judge could not be reached",
    "judge_rejected": "the judge's endpoint refused the call",
    "judge_disagrees": "the judge's answers disagree",
    "judge_call": "it is a judge's own call",
    "too_long": "the text is too long",
    "out_of_memory": "memory ran out",
    "worker_died": "the evaluator's process died",
    "no_record": "the truth has no record",
    "no_truth": "the feedback has no usable truth",
    "no_prediction": "the answer has no prediction",
    "prediction_not_found": "no prediction was found in the answer",
    "several_predictions": "the answer has several predictions",
    "prediction_not_a_number": "the prediction is no number",
    "waiting_for_record": "the truth waits for its record",
}
"""Why something has no score, as pages say it; others are shown as they are written."""


def note_of(evaluator: str, target: str = "response") -> EvaluatorNote:
    """The note on an evaluator; ``judge.NAME`` and ``ground_truth.NAME`` are as their kind, others have an empty one."""
    note = _NOTES.get(evaluator.partition(".")[0], _NO_NOTE)
    # Of a prompt nothing can leak.
    return replace(note, flagged="found") if note.flagged == "leak" and target == "request" else note


def reason_words(reason: object) -> str:
    """A reason for which something has no score, in words."""
    return REASONS.get(str(reason), str(reason).replace("_", " "))
