"""What an app may send as feedback, read and checked before anything of it is kept.

Invariant: whatever passes here becomes rows: ids that are ours, finite numbers, texts within their bounds, and at least one
part. Every refusal names the field, and in a list the place of the feedback in it.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Final, Literal

import msgspec

from collector.feedback_record import COMMENT, CORRECTED_ANSWER, GROUND_TRUTH, SCORE, THUMBS, Part
from servelens.errors import Invalid
from servelens.identifiers import time_us
from serving_proxy.request_body import MAX_IDENTIFIER

MAX_AT_ONCE: Final = 100
MAX_NAME: Final = 64
MAX_LABEL: Final = 1_000
MAX_COMMENT: Final = 10_000
MAX_ANSWER: Final = 100_000
MAX_TAGS: Final = 32
MAX_TAG: Final = 256

_OURS: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]*")
_OLDEST_US: Final = 946_684_800_000_000  # 2000
_AHEAD_US: Final = 86_400_000_000  # what came in another way may be dated by a clock that is ahead
_TEXTS_ONLY: Final = (COMMENT, CORRECTED_ANSWER)

_Tag = Annotated[str, msgspec.Meta(max_length=MAX_TAG)]


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One feedback as it is sent. ``endpoint`` and ``model`` are two words for one thing, and so are ``comment`` and
    ``text``.
    """

    request_id: str | None = None
    client_request_id: str | None = None
    endpoint: str | None = None
    model: str | None = None
    name: str | None = None
    value: float | bool | None = None
    label: str | None = None
    thumbs: Literal["up", "down"] | None = None
    score: float | None = None
    comment: str | None = None
    text: str | None = None
    corrected_answer: str | None = None
    ground_truth: float | bool | str | None = None
    tags: dict[_Tag, _Tag] | None = None
    user: str | None = None
    feedback_id: str | None = None

    @property
    def named_endpoint(self) -> str | None:
        """The endpoint, under either name."""
        return self.endpoint or self.model

    @property
    def parts(self) -> list[Part]:
        """What is said, each as the row that it becomes."""
        found: list[Part] = []
        if self.thumbs is not None:
            found.append(Part(THUMBS, 1.0 if self.thumbs == "up" else 0.0, self.thumbs))
        if self.score is not None:
            found.append(Part(SCORE, self.score))
        if self.value is not None or self.label is not None:
            found.append(Part(self.name or "", None if self.value is None else float(self.value), self.label))
        comment = self.comment if self.comment is not None else self.text
        if comment is not None:
            found.append(Part(COMMENT, comment=comment))
        if self.corrected_answer is not None:
            found.append(Part(CORRECTED_ANSWER, comment=self.corrected_answer))
        truth = self.ground_truth
        if isinstance(truth, bool):
            found.append(Part(GROUND_TRUTH, label=str(truth).lower()))
        elif isinstance(truth, str):
            found.append(Part(GROUND_TRUTH, label=truth))
        elif truth is not None:
            found.append(Part(GROUND_TRUTH, truth))
        return found


_decode_one: Final = msgspec.json.Decoder(Given).decode
_decode_many: Final = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_feedback(body: bytes, now_us: int, named: str | None = None) -> tuple[list[Given], bool]:
    """All feedback in a request's body, and whether it is a list. ``named`` is the endpoint that the path names.

    Raises :class:`~servelens.errors.Invalid` for the first that is wrong.
    """
    try:
        body.decode()
    except UnicodeDecodeError as error:
        raise _no_json(error) from error
    if not body.lstrip().startswith(b"["):
        return [_read(body, now_us, named)], False
    try:
        items = _decode_many(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_json(error) from error
    if not items:
        raise Invalid("The list is empty.", field="body", fix="Send at least one feedback.")
    if len(items) > MAX_AT_ONCE:
        raise Invalid(
            f"There are {len(items)} feedbacks in one call.",
            field="body",
            fix=f"Send at most {MAX_AT_ONCE} at once.",
        )
    found = []
    for number, item in enumerate(items):
        try:
            found.append(_read(bytes(item), now_us, named))
        except Invalid as error:
            raise error.within(f"[{number}]") from error
    return found, True


def _read(item: bytes, now_us: int, named: str | None) -> Given:
    try:
        given = _decode_one(item)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$")
        field = where.rstrip("`").removeprefix(".") or "body"
        raise Invalid(_worded(problem), field=field, fix=_EXPECTED.get(field.partition("[")[0])) from error
    except (msgspec.DecodeError, RecursionError) as error:
        raise _no_json(error) from error
    _check(given, now_us, named)
    return msgspec.structs.replace(given, request_id=given.request_id and given.request_id.lower())


def _check(given: Given, now_us: int, named: str | None) -> None:
    if (given.request_id is None) == (given.client_request_id is None):
        raise Invalid(
            "Exactly one of request_id and client_request_id says which call is meant.",
            field="request_id",
            fix="Send the answer's header x-request-id (databricks-request-id) as request_id.",
        )
    if given.request_id is not None:
        _check_id(given.request_id.lower(), now_us)
    _check_texts(given)
    if given.endpoint is not None and given.model is not None and given.endpoint != given.model:
        raise Invalid(
            f"It is not the endpoint {given.endpoint!r}.", field="model", fix="Send one of the two."
        )
    if named is not None and given.named_endpoint not in (None, named):
        raise Invalid(
            f"The path names the endpoint {named!r}, the body {given.named_endpoint!r}.",
            field="endpoint" if given.endpoint is not None else "model",
            fix="Leave it out of the body.",
        )
    if given.comment is not None and given.text is not None:
        raise Invalid("comment and text are two words for the same.", field="text", fix="Send one of them.")
    _check_named(given)
    for name in ("value", "score", "ground_truth"):
        number = getattr(given, name)
        if isinstance(number, float) and not math.isfinite(number):
            raise Invalid("It is not a finite number.", field=name, fix="Send a number such as 0.7.")
    if given.tags is not None and len(given.tags) > MAX_TAGS:
        raise Invalid(f"There are {len(given.tags)} tags.", field="tags", fix=f"Send at most {MAX_TAGS}.")
    if not given.parts:
        raise Invalid(
            "It says nothing.",
            field="body",
            fix="Send thumbs, score, name with value or label, comment, corrected_answer or ground_truth.",
        )


def _check_named(given: Given) -> None:
    has_named = given.value is not None or given.label is not None
    if not has_named:
        if given.name is not None:
            raise Invalid("It has neither value nor label.", field="name", fix="Send one, or leave name out.")
        return
    if given.name is None:
        raise Invalid(
            "value and label need a name.",
            field="name",
            fix="Send a name such as 'helpfulness', or use thumbs or score.",
        )
    if not _NAME.fullmatch(given.name) or len(given.name) > MAX_NAME:
        raise Invalid(
            f"{given.name[:100]!r} is no name.",
            field="name",
            fix=f"Use 1 to {MAX_NAME} letters, digits, '_', '.', ':' or '-', beginning with a letter or digit.",
        )
    if given.name in _TEXTS_ONLY:
        raise Invalid(
            f"{given.name!r} is a text.", field="name", fix=f"Send {given.name} as a field of its own."
        )
    if getattr(given, given.name, None) is not None and given.name in (THUMBS, SCORE, GROUND_TRUTH):
        raise Invalid(
            f"There is a field {given.name!r} beside it.",
            field="name",
            fix="Say it once, or use another name.",
        )


def _check_id(request_id: str, now_us: int) -> None:
    if not _OURS.fullmatch(request_id):
        raise Invalid(
            f"{request_id[:100]!r} is no id of a call.",
            field="request_id",
            fix="Send the answer's header x-request-id, not the id in the answer's body.",
        )
    moment = time_us(request_id)
    if moment > now_us + _AHEAD_US:
        raise Invalid("It is of a time that has not come yet.", field="request_id", fix="Send it as it came.")
    if moment < _OLDEST_US:
        raise Invalid("It is of a time before 2000.", field="request_id", fix="Send it as it came.")


def _check_texts(given: Given) -> None:
    for name, limit in _LIMITS:
        text = getattr(given, name)
        if not isinstance(text, str):
            continue
        if not text.strip():
            raise Invalid("It is blank.", field=name, fix="Leave it out, or say something.")
        if len(text) > limit:
            raise Invalid(
                f"It has {len(text)} characters.", field=name, fix=f"Send at most {limit} characters."
            )


_LIMITS: Final = (
    *((name, MAX_IDENTIFIER) for name in ("client_request_id", "endpoint", "model", "user", "feedback_id")),
    ("label", MAX_LABEL),
    *((name, MAX_COMMENT) for name in ("comment", "text")),
    *((name, MAX_ANSWER) for name in ("corrected_answer", "ground_truth")),
)
_EXPECTED: Final[dict[str, str]] = {
    "thumbs": "Send 'up' or 'down'.",
    "score": "Send a number.",
    "value": "Send a number, true or false.",
    "ground_truth": "Send a text, a number, true or false.",
    "tags": f"Send texts of at most {MAX_TAG} characters by name.",
    "body": f"The fields are: {', '.join(Given.__struct_fields__)}.",
}


def _worded(problem: str) -> str:
    return problem if problem.endswith(".") else f"{problem}."


def _no_json(error: Exception) -> Invalid:
    return Invalid(
        f"The request body is not valid JSON: {error}.",
        field="body",
        fix="Send one UTF-8 JSON object, or a list of them.",
    )
