"""Which paths are the data plane, and what each asks for. Everything else is left to the HTTP application.

The OpenAI and Anthropic paths exist twice: under ``/v1`` and under ``/serving-endpoints``, which is the base
URL that Databricks gives to clients. ``/serving-endpoints/{name}/invocations`` names its endpoint in the path,
``/serving-endpoints/{name}/served-models/{entity}/invocations`` also the served entity, past all routes;
``/v2/models/{name}/infer`` is that of KServe's Open Inference Protocol.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import unquote_to_bytes

import httptools

from serving_proxy.dialects.anthropic import Anthropic
from serving_proxy.dialects.dialect import Dialect
from serving_proxy.dialects.kserve import KServe
from serving_proxy.dialects.mlflow import MLflow
from serving_proxy.dialects.openai import OpenAI, OpenAIResponses
from serving_proxy.event_end import DONE, MESSAGE_STOP, RESPONSE_END, StreamEnd

OPENAI: Final = OpenAI()
RESPONSES: Final = OpenAIResponses()
ANTHROPIC: Final = Anthropic()
MLFLOW: Final = MLflow()
KSERVE: Final = KServe()

_PREFIX: Final = b"/serving-endpoints/"
_SUFFIX: Final = b"/invocations"
_SERVED: Final = b"/served-models/"
_INFER: Final = re.compile(rb"/v2/models/([^/]+)(?:/versions/[^/]+)?/infer")


Kind = Literal["chat", "completions", "embeddings", "responses", "messages", "scoring", "infer"]
"""What a body is."""


@dataclass(frozen=True, slots=True)
class Target:
    """An operation: its ``api`` as the record has it, its dialect, and endpoint and served entity if the path
    names them. ``kind`` says what a body is where the path tells; ``answers_json`` is false where a whole
    answer may be something else.
    """

    api: str
    dialect: Dialect
    endpoint: str | None = None
    entity: str | None = None
    stream_end: StreamEnd | None = DONE
    answers_json: bool = True
    kind: Kind | None = None


_OPENAI_PATHS: Final = {
    b"/chat/completions": Target("chat", OPENAI, kind="chat"),
    b"/completions": Target("completions", OPENAI, kind="completions"),
    b"/embeddings": Target("embeddings", OPENAI, kind="embeddings"),
    b"/responses": Target("responses", RESPONSES, stream_end=RESPONSE_END, kind="responses"),
    b"/messages": Target("messages", ANTHROPIC, stream_end=MESSAGE_STOP, kind="messages"),
}
_FIXED: Final[dict[bytes, Target]] = {
    base + path: target
    for base in (b"/v1", b"/serving-endpoints", b"/serving-endpoints/v1", b"/serving-endpoints/anthropic/v1")
    for path, target in _OPENAI_PATHS.items()
}


def find_target(url: bytes) -> Target | None:
    """The operation behind a request target, or ``None`` when it is not the data plane's."""
    target = _FIXED.get(url)
    if target is not None:
        return target
    path = url.partition(b"?")[0] if url.startswith(b"/") else _path_of(url)
    target = _FIXED.get(path)
    if target is not None:
        return target
    if path.startswith(_PREFIX) and path.endswith(_SUFFIX):
        name = path[len(_PREFIX) : -len(_SUFFIX)]
        name, _, entity = name.partition(_SERVED)
        if name and b"/" not in name and b"/" not in entity:
            return Target("invocations", MLFLOW, _text(name), _text(entity) or None)
    elif match := _INFER.fullmatch(path):
        return Target("infer", KSERVE, _text(match[1]), stream_end=None, answers_json=False, kind="infer")
    return None


def _text(quoted: bytes) -> str:
    return unquote_to_bytes(quoted).decode("utf-8", "replace")


def _path_of(url: bytes) -> bytes:
    """The path of an absolute-form target (RFC 9112 §3.2.2), which clients of a forward proxy send."""
    try:
        return httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError:
        return b""
