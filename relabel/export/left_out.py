"""Why a labeled case, or a pair of its answers, gives no training example: counted, never bent into shape."""

from __future__ import annotations

from enum import StrEnum


class LeftOut(StrEnum):
    """A reason. ``BAD_WITHOUT_CORRECTION``: nobody said what the answer should have been; ``NOT_JUDGED``: the label has
    neither a rating, a correction nor a preference that the format could use; ``NO_PAIR``: no second answer to hold against
    the better one; ``SAME_ANSWER``: the two answers read the same; ``UNKNOWN_ALTERNATIVE``: the preferred answer is not kept
    with the case; ``UNSUPPORTED_TURNS``: questions and answers do not take turns as the format wants; ``DUPLICATE``: another
    case has given the same.
    """

    BAD_WITHOUT_CORRECTION = "bad_without_correction"
    NOT_JUDGED = "not_judged"
    TIE = "tie"
    NO_PAIR = "no_pair"
    SAME_ANSWER = "same_answer"
    UNKNOWN_ALTERNATIVE = "unknown_alternative"
    NO_ANSWER = "no_answer"
    NO_PROMPT = "no_prompt"
    UNSUPPORTED_ROLE = "unsupported_role"
    UNSUPPORTED_CONTENT = "unsupported_content"
    UNSUPPORTED_TOOLS = "unsupported_tools"
    UNSUPPORTED_TURNS = "unsupported_turns"
    EMPTY_MESSAGE = "empty_message"
    DUPLICATE = "duplicate"


class Unfit(Exception):
    """Raised on the way to an example that cannot be; caught by whoever counts."""

    def __init__(self, reason: LeftOut) -> None:
        self.reason = reason
        super().__init__(reason)
