"""Asks an endpoint for another answer to a case's question, through the proxy, as any other client would.

Invariants: the call has one time limit for all of it, and its answer a size limit, so that a backend that hangs holds no thread
of the console for ever; at most :data:`AT_ONCE` are under way. The caller's own key is what the call is made with, and it is in
no message. Redirects are not followed and the environment's proxies not used.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any, Final
from urllib.parse import quote

import httpx

from collector.forget import REGENERATED_FOR
from relabel.alternatives import Question, answered
from relabel.case import Alternative
from relabel.conversation import read_conversation
from relabel.label import check_text
from servelens.errors import Backpressure, Invalid, Missing, Unavailable

AT_ONCE: Final = 4

_MAX_BYTES: Final = 8 * 1024**2
_SHOWN: Final = 500
_LONGEST_NAME: Final = 255
_SENDABLE: Final = re.compile(rb"[!-~]+")


class Regeneration:
    """Other answers from the proxy at ``proxy_url``. ``timeout_s`` is for a whole call. Threads may share it."""

    def __init__(self, proxy_url: str, *, timeout_s: float = 120.0) -> None:
        self._url = proxy_url.rstrip("/")
        self._timeout_s = timeout_s
        self._room = threading.BoundedSemaphore(AT_ONCE)

    def ask(self, question: Question, served_entity: str | None, key: bytes | None) -> Alternative:
        """Another answer, of ``served_entity`` past all routes, else of whichever the endpoint chooses. ``key`` is the
        caller's API key.

        Raises :class:`~servelens.errors.Unavailable` when the proxy or the backend fails or is too slow,
        :class:`~servelens.errors.Invalid` when it refuses the call, :class:`~servelens.errors.Missing` for an entity that is
        not there, and :class:`~servelens.errors.Backpressure` when it, or this, has too much to do; with its words.
        """
        if key is not None and not _SENDABLE.fullmatch(key):
            raise Invalid(
                "it cannot be sent in a request",
                field="authorization",
                fix="Check the API key for line breaks.",
            )
        if served_entity is not None:
            check_text(served_entity, "served_entity", _LONGEST_NAME)
        if not self._room.acquire(blocking=False):
            raise Backpressure(f"{AT_ONCE} answers are being generated already", fix="Wait for one of them.")
        try:
            return self._ask(question, served_entity, key)
        finally:
            self._room.release()

    def _ask(self, question: Question, served_entity: str | None, key: bytes | None) -> Alternative:
        body: dict[str, Any] = {"model": question.endpoint, "messages": list(question.messages)}
        if question.tools:
            body["tools"] = list(question.tools)
        headers = {
            b"content-type": b"application/json",
            b"user-agent": b"servelens",
            b"x-servelens-tags": f"{REGENERATED_FOR}={quote(question.databricks_request_id, safe='')}".encode(),
        }
        if key is not None:
            headers[b"authorization"] = b"Bearer " + key
        url = self._url + _path(question.endpoint, served_entity)
        response, content = asyncio.run(self._post(url, json.dumps(body).encode(), headers))
        if not response.is_success:
            raise _refusal(response, content, served_entity)
        return _answer(response, content)

    async def _post(
        self, url: str, body: bytes, headers: Mapping[bytes, bytes]
    ) -> tuple[httpx.Response, bytes]:
        content = bytearray()
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                httpx.AsyncClient(
                    verify=_trusted(), trust_env=False, follow_redirects=False, timeout=self._timeout_s
                ) as client,
                client.stream("POST", url, content=body, headers=list(headers.items())) as response,
            ):
                async for chunk in response.aiter_bytes():
                    content += chunk
                    if len(content) > _MAX_BYTES:
                        raise Unavailable(f"the answer is over {_MAX_BYTES} bytes", field="proxy")
        except (TimeoutError, httpx.TimeoutException) as error:
            raise Unavailable(
                f"there was no answer within {self._timeout_s:g} s",
                field="proxy",
                fix="Try again, or another served entity.",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            words = str(error)[:_SHOWN] or type(error).__name__
            raise Unavailable(
                f"the proxy cannot be reached: {words}", field="proxy", fix="Is it running?"
            ) from error
        return response, bytes(content)


def _path(endpoint: str, served_entity: str | None) -> str:
    if served_entity is None:
        return "/v1/chat/completions"
    names = quote(endpoint, safe=""), quote(served_entity, safe="")
    return "/serving-endpoints/{}/served-models/{}/invocations".format(*names)


def _refusal(
    response: httpx.Response, content: bytes, served_entity: str | None
) -> Unavailable | Invalid | Missing | Backpressure:
    status = response.status_code
    words = f"the endpoint answered {status}: {_words(content)}"
    if status == 429:
        return Backpressure(words, fix="Try again later.")
    if status == 404:
        return Missing(words, field="served_entity" if served_entity is not None else "endpoint")
    if status in (401, 403):
        return Invalid(
            words, field="authorization", fix="Use a key that may call the endpoint as well (--scope invoke)."
        )
    if 400 <= status < 500:
        return Invalid(words, field="case_id", fix="Another served entity may take the conversation.")
    return Unavailable(words, field="proxy", fix="Try again, or another served entity.")


def _words(content: bytes) -> str:
    """What an error says, in any of the dialects' shapes."""
    text = content.decode("utf-8", "replace")
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, dict):
        inner = body.get("error")
        candidates = [
            inner.get("message") if isinstance(inner, dict) else inner,
            body.get("message"),
            body.get("detail"),
        ]
        text = next((each for each in candidates if isinstance(each, str) and each), text)
    return " ".join(text.split())[:_SHOWN] or "nothing"


def _answer(response: httpx.Response, content: bytes) -> Alternative:
    text = content.decode("utf-8", "replace")
    conversation = read_conversation(None, text, None, None)
    if conversation is None:
        raise Unavailable(
            f"the endpoint's answer holds no chat message: {_words(content)}",
            field="proxy",
            fix="Only endpoints that chat can answer again.",
        )
    model = json.loads(text).get("model")
    return answered(
        "regenerated",
        conversation.messages[-1],
        served_entity=response.headers.get("x-servelens-served-entity"),
        model=model if isinstance(model, str) else None,
        databricks_request_id=response.headers.get("databricks-request-id"),
    )


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities that this machine trusts, read once: it takes a tenth of a second."""
    return ssl.create_default_context()
