"""Which paths are the data plane, and what each asks for. Everything else is left to the HTTP application.

The OpenAI paths exist twice: under ``/v1`` and under ``/serving-endpoints``, which is the base URL that
Databricks gives to OpenAI clients. ``/serving-endpoints/{name}/invocations`` names its endpoint in the
path.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import unquote_to_bytes

import httptools

from serving_proxy.dialects.dialect import Dialect
from serving_proxy.dialects.mlflow import MLflow
from serving_proxy.dialects.openai import OpenAI

OPENAI: Final = OpenAI()
MLFLOW: Final = MLflow()

_PREFIX: Final = b"/serving-endpoints/"
_SUFFIX: Final = b"/invocations"


class Target(NamedTuple):
    """An operation: its ``api`` as the record has it, its dialect, and the endpoint if the path names it."""

    api: str
    dialect: Dialect
    endpoint: str | None = None


_CHAT: Final = Target("chat", OPENAI)
_COMPLETIONS: Final = Target("completions", OPENAI)
_FIXED: Final[dict[bytes, Target]] = {
    b"/v1/chat/completions": _CHAT,
    b"/v1/completions": _COMPLETIONS,
    b"/serving-endpoints/chat/completions": _CHAT,
    b"/serving-endpoints/completions": _COMPLETIONS,
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
        if name and b"/" not in name:
            return Target("invocations", MLFLOW, unquote_to_bytes(name).decode("utf-8", "replace"))
    return None


def _path_of(url: bytes) -> bytes:
    """The path of an absolute-form target (RFC 9112 §3.2.2), which clients of a forward proxy send."""
    try:
        return httptools.parse_url(url).path or b"/"
    except httptools.HttpParserInvalidURLError:
        return b""
