"""Asks the judge's server over HTTP, with patience: a deadline, retries with back-off, and one fallback.

Invariant: what comes out says whose fault it was. :class:`Answered` has the body; :class:`Rejected` is the server's verdict
on this request (4xx); :class:`Failed` is trouble that retries did not end. A wrong key or model raises at once, since no
retry and no other record would fare better. The key is in the header of the request and nowhere else.

Waiting: full jitter over an exponential back-off (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/),
never shorter than ``Retry-After`` (RFC 9110 §10.2.3); one that is longer than a minute ends the retries.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

import httpx

from evaluators.evaluator import TIMED_OUT, Text
from evaluators.judge.options import HERE, JudgeOptions
from evaluators.judge.prompt import messages, response_format
from servelens.errors import Unavailable

UNAVAILABLE: Final = "judge_unavailable"
"""The judge answered other texts, but not this one, however often it was asked."""
REJECTED: Final = "judge_rejected"
"""The server refused the request for this text, and takes others: it is too long for the model, for example."""
TAG: Final = "servelens-judge"
"""A call with this tag (``x-servelens-tags``) is a judge's own; its value is the judge's name."""

_LONGEST_WAIT_S: Final = 60.0
_MAX_BODY: Final = 4 * 1024 * 1024
_SHOWN: Final = 200
_RETRIED: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_REFUSES_THE_FORM: Final = frozenset({400, 415, 422, 501})
_REJECTS_THE_TEXT: Final = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class Answered:
    """The body of a 200, as JSON; ``plain``: it was asked for without ``response_format``, which the server refuses.
    ``lost``, here and below: how many requests before it, or of it, gave nothing and may have cost all the same.
    """

    body: Any
    plain: bool
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server does not take this request; ``detail`` is its status and the beginning of its answer."""

    detail: str
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer after all retries; ``reason`` is that of an unscored text."""

    reason: str
    detail: str
    lost: int


@dataclass(frozen=True, slots=True)
class _Trouble:
    failed: Failed
    retry_after_s: float = 0.0


class JudgeClient:
    """One judge over one connection pool. Not to be shared between event loops."""

    def __init__(
        self, options: JudgeOptions, http: httpx.AsyncClient, *, backoff_s: float, plain: bool = False
    ) -> None:
        self._options = options
        self._http = http
        self._backoff_s = backoff_s
        self.plain = plain
        """Whether the server has refused ``response_format``, so that it is left out."""

    async def ask(self, text: Text, *, retries: int) -> Answered | Rejected | Failed:
        """Send ``text``. Raises :class:`~servelens.errors.Unavailable` for a key, a model or an address that is wrong."""
        trouble: _Trouble | None = None
        lost = 0
        for attempt in range(retries + 1):
            if trouble is not None:
                if trouble.retry_after_s > _LONGEST_WAIT_S:
                    break
                backoff = min(self._backoff_s * 2**attempt, _LONGEST_WAIT_S)
                await asyncio.sleep(trouble.retry_after_s + random.uniform(0, backoff))
            outcome = await self._ask_once(text)
            if not isinstance(outcome, _Trouble):
                return replace(outcome, lost=lost)
            trouble = outcome
            lost += trouble.failed.lost
        assert trouble is not None
        return replace(trouble.failed, lost=lost)

    async def _ask_once(self, text: Text) -> Answered | Rejected | _Trouble:
        plain = self.plain
        form = None if plain else response_format(self._options)
        outcome = await self._post(text, form)
        if (
            form is None
            or not isinstance(outcome, httpx.Response)
            or outcome.status_code not in _REFUSES_THE_FORM
        ):
            return self._read(outcome, plain=plain)
        # The words for it differ from server to server, so it is found out: the same request without the form.
        again = await self._post(text, None)
        if isinstance(again, httpx.Response) and again.status_code == 200:
            self.plain = True
            return self._read(again, plain=True)
        return self._read(again, plain=plain)

    async def _post(self, text: Text, form: Mapping[str, Any] | None) -> httpx.Response | _Trouble:
        options = self._options
        body: dict[str, Any] = {"model": options.model, "messages": messages(options, text), "stream": False}
        if options.temperature is not None:
            body["temperature"] = options.temperature
        if options.max_tokens is not None:
            body["max_tokens"] = options.max_tokens
        if form is not None:
            body["response_format"] = form
        headers = {"x-servelens-tags": f"{TAG}={options.name}", "x-servelens-unit": TAG}
        if options.api_key is not None:
            headers["authorization"] = f"Bearer {options.api_key}"
        try:
            async with asyncio.timeout(options.timeout_s):
                return await self._exchange(body | dict(options.extra_body), headers)
        except (TimeoutError, httpx.TimeoutException):
            return _Trouble(Failed(TIMED_OUT, f"no answer in {options.timeout_s:g} s", lost=1))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return _Trouble(Failed(UNAVAILABLE, f"{type(error).__name__}: {error}"[:_SHOWN], lost=0))

    async def _exchange(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        address = f"{self._options.url}/chat/completions"
        async with self._http.stream("POST", address, json=body, headers=headers) as response:
            content = bytearray()
            async for chunk in response.aiter_bytes():
                content += chunk
                if len(content) > _MAX_BODY:
                    raise httpx.RemoteProtocolError(f"the answer is over {_MAX_BODY} bytes")
        return httpx.Response(response.status_code, headers=_kept(response.headers), content=bytes(content))

    def _read(self, outcome: httpx.Response | _Trouble, *, plain: bool) -> Answered | Rejected | _Trouble:
        if isinstance(outcome, _Trouble):
            return outcome
        status = outcome.status_code
        said = f"HTTP {status}: {outcome.text[:_SHOWN]}".replace("\0", "")
        if status == 200:
            try:
                return Answered(json.loads(outcome.content), plain)
            except (ValueError, RecursionError):
                return _Trouble(Failed(UNAVAILABLE, f"the body is no JSON: {outcome.text[:_SHOWN]}", lost=1))
        if status in _RETRIED:
            wait = _retry_after(outcome.headers.get("retry-after"), datetime.now(UTC))
            return _Trouble(Failed(UNAVAILABLE, said, lost=0), wait)
        if status in _REJECTS_THE_TEXT:
            return Rejected(said)
        raise Unavailable(
            f"the judge at {self._options.url} takes no request: {said}",
            field=HERE,
            fix="Check its url, model and api_key.",
        )


def _kept(headers: httpx.Headers) -> dict[str, str]:
    # The content is decoded already; its old length and encoding would be applied again.
    return {name: headers[name] for name in ("content-type", "retry-after") if name in headers}


def _retry_after(value: str | None, now: datetime) -> float:
    """Seconds to wait by the header, which holds seconds or a date; 0 where it says nothing that can be read."""
    if value is None:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return 0.0
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


# One line for each request would bury everything else.
logging.getLogger("httpx").setLevel(logging.WARNING)
