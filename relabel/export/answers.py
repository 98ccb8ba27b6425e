"""Which answers of a case a label speaks for and against.

Invariant: an answer is learnt from only when a person said so. A recorded answer that was rated bad never becomes one
because it was preferred to something worse, nor does an alternative that was preferred to a bad answer: preferred is not
good. Where nobody was asked for a rating, the preferred answer is the best that is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from relabel.export.labeled_case import LabeledCase, Message
from relabel.export.left_out import LeftOut, Unfit
from relabel.label import ANSWER, TIE, Rating


class Pair(NamedTuple):
    """Two assistant messages that answer the same request."""

    chosen: Message
    rejected: Message


class Judged(NamedTuple):
    """An assistant message, and whether it is wanted."""

    answer: Message
    wanted: bool


def best_answer(case: LabeledCase) -> Message:
    """The corrected answer, else the preferred one, else the recorded one if it was rated good.

    Raises :class:`~relabel.export.left_out.Unfit` where there is none.
    """
    if case.corrected_answer is not None:
        return _written(case.corrected_answer)
    if case.rating is Rating.BAD:
        raise Unfit(LeftOut.BAD_WITHOUT_CORRECTION)
    if case.preferred is not None and case.preferred != TIE:
        return _preferred(case)
    if case.rating is Rating.GOOD:
        return _recorded(case)
    raise Unfit(LeftOut.TIE if case.preferred == TIE else LeftOut.NOT_JUDGED)


def pairs(case: LabeledCase) -> Iterator[Pair | LeftOut]:
    """The corrected answer against the recorded one that was rated bad, and the preferred answer against each other one;
    in place of a pair why it is none. Something is always given.
    """
    found = False
    for pair in _pairs(case):
        found = True
        yield LeftOut.SAME_ANSWER if isinstance(pair, Pair) and _same(*pair) else pair
    if not found:
        yield LeftOut.TIE if case.preferred == TIE else LeftOut.NO_PAIR


def judged(case: LabeledCase) -> Iterator[Judged | LeftOut]:
    """The recorded answer as it was rated and the corrected one, which is wanted; where nobody rated or corrected, the
    preferred answer, which is wanted, and the others, which are not. Something is always given.
    """
    corrected = None if case.corrected_answer is None else _written(case.corrected_answer)
    if case.rating is not None and not case.answered and corrected is None:
        yield LeftOut.NO_ANSWER
    elif case.rating is not None and case.answered:
        recorded = case.messages[-1]
        repeated = corrected is not None and _same(corrected, recorded)
        if repeated and case.rating is Rating.BAD:
            yield LeftOut.SAME_ANSWER
            return
        yield Judged(recorded, case.rating is Rating.GOOD)
        if repeated:
            return
    if corrected is not None:
        yield Judged(corrected, True)
    elif case.rating is None:
        yield from _judged_by_preference(case)


def _judged_by_preference(case: LabeledCase) -> Iterator[Judged | LeftOut]:
    if case.preferred is None or case.preferred == TIE:
        yield LeftOut.TIE if case.preferred == TIE else LeftOut.NOT_JUDGED
        return
    try:
        chosen = _preferred(case)
    except Unfit as unfit:
        yield unfit.reason
        return
    yield Judged(chosen, True)
    for other in _others(case):
        yield LeftOut.SAME_ANSWER if _same(chosen, other) else Judged(other, False)


def _pairs(case: LabeledCase) -> Iterator[Pair | LeftOut]:
    if case.corrected_answer is not None and case.rating is Rating.BAD:
        if case.answered:
            yield Pair(_written(case.corrected_answer), case.messages[-1])
        else:
            yield LeftOut.NO_ANSWER
    if case.preferred is not None and case.preferred != TIE:
        try:
            chosen = _preferred(case)
        except Unfit as unfit:
            yield unfit.reason
            return
        for other in _others(case):
            yield Pair(chosen, other)


def _preferred(case: LabeledCase) -> Message:
    if case.preferred == ANSWER:
        return _recorded(case)
    for alternative in case.alternatives:
        if alternative["id"] == case.preferred:
            return _message_of(alternative)
    raise Unfit(LeftOut.UNKNOWN_ALTERNATIVE)


def _others(case: LabeledCase) -> Iterator[Message]:
    if case.answered and case.preferred != ANSWER:
        yield case.messages[-1]
    for alternative in case.alternatives:
        if alternative["id"] != case.preferred:
            yield _message_of(alternative)


def _recorded(case: LabeledCase) -> Message:
    if not case.answered:
        raise Unfit(LeftOut.NO_ANSWER)
    return case.messages[-1]


def _written(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _message_of(alternative: Any) -> Message:
    message: Message = alternative["message"]
    return message


def _same(one: Message, other: Message) -> bool:
    parts = ("content", "tool_calls", "function_call")
    return all((one.get(part) or None) == (other.get(part) or None) for part in parts)
