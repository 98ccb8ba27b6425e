"""Guardrails on requests and on whole answers."""

from __future__ import annotations

from typing import Final

import msgspec

from servelens.errors import Unavailable
from serving_proxy.gateway import Guardrails
from serving_proxy.guardrails.blocked import Blocked
from serving_proxy.guardrails.request_texts import RequestTexts
from serving_proxy.guardrails.screen import Screen, screen_of
from serving_proxy.guardrails.text_fields import Changes, Treat, treat_texts, without_probabilities
from serving_proxy.target import Kind

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def screen_input(guardrails: Guardrails, kind: Kind, body: bytes) -> bytes:
    """The request as it may be sent and recorded, personal data masked.

    Raises Blocked, naming the guardrail and the field; Invalid for a body whose texts cannot be read (no JSON, token
    numbers in place of a text).
    """
    screen = screen_of(guardrails, "input")
    texts = RequestTexts(kind, body)
    try:
        texts.treat(screen.text)
    except Blocked as blocked:
        if guardrails.pii is not None:  # neither may the record have what the model may not
            blocked.masked = screen_input(Guardrails(pii="mask"), kind, body)
        raise
    return texts.encoded()


def screen_answer(screen: Screen, body: bytes) -> bytes:
    """A whole answer, personal data masked; the same object when there is none. Raises Blocked, and Unavailable for one that
    is no JSON.
    """
    return treat_answer(body, screen.text)


def treat_answer(body: bytes, treat: Treat) -> bytes:
    """A whole answer with its texts treated; the same object when none changed. Raises what ``treat`` does, and Unavailable
    for an answer that is no JSON.
    """
    changes = Changes(treat)
    try:
        treated = treat_texts(_decode(body), changes)
    except _UNREADABLE as error:
        raise Unavailable("The answer is no JSON and cannot be screened by the guardrails.") from error
    if not changes.any:
        return body
    without_probabilities(treated)
    return _encode(treated)
