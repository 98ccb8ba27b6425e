"""One POST with a time limit for all of it, as an :class:`Outcome`.

Invariants: httpx limits each read by itself, so a receiver that sends a byte a second would hold it for ever; here the
limit is for everything together. At most :data:`_ANSWER` bytes of the answer are read. Redirects are not followed: who
was named answers. The environment's proxies are not used: only the settings file reads the environment.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from functools import cache
from typing import Final

import httpx

from evaluators.alerts.channels.channel import Outcome

LONGEST_WAIT_S: Final = 3_600.0
"""A receiver's wish to be left alone is heard up to here."""

_ANSWER: Final = 2_048
_SHOWN: Final = 200
# What may succeed when it is said again: time-outs, too early, too many, and every fault of the receiver.
_AGAIN: Final = frozenset((408, 421, 423, 425, 429))


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    timeout_s: float,
    verify: ssl.SSLContext | None = None,
    quote_answer: bool = False,
) -> Outcome:
    """POST ``body``. ``quote_answer`` puts the beginning of a refusal into the outcome: only for receivers that are known
    not to echo what they were sent.
    """
    return asyncio.run(_post(url, body, headers, timeout_s, verify or _trusted(), quote_answer))


async def _post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    timeout_s: float,
    verify: ssl.SSLContext,
    quote_answer: bool,
) -> Outcome:
    try:
        async with (
            asyncio.timeout(timeout_s),
            httpx.AsyncClient(
                verify=verify,
                trust_env=False,
                follow_redirects=False,
                timeout=timeout_s,
            ) as client,
            client.stream(
                "POST", url, content=body, headers={"user-agent": "servelens", **headers}
            ) as response,
        ):
            answer = b""
            if quote_answer and not response.is_success:
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) >= _ANSWER:
                        break
            return _outcome(response, answer)
    except (TimeoutError, httpx.TimeoutException):
        return Outcome(False, f"did not answer within {timeout_s:.3g} s", again=True)
    except httpx.InvalidURL:
        return Outcome(False, "has an address that is none")
    except (httpx.LocalProtocolError, ValueError):
        # Its words quote the header, which may be a secret: one with a line break at its end is the usual mistake.
        return Outcome(False, "has a header that no request can carry: look for spaces, line breaks, accents")
    except (httpx.HTTPError, OSError) as error:
        # The words of httpx hold no address, those of the resolver only the host.
        return Outcome(False, f"could not be reached: {str(error) or type(error).__name__}"[:300], again=True)


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities that this machine trusts, read once: it takes a tenth of a second."""
    return ssl.create_default_context()


def _outcome(response: httpx.Response, answer: bytes) -> Outcome:
    status = response.status_code
    if response.is_success:
        return Outcome(True, f"answered {status}", status)
    words = " ".join(answer.decode("utf-8", "replace").split())[:_SHOWN]
    hint = "; redirects are not followed" if response.is_redirect else f": {words}" if words else ""
    again = status >= 500 or status in _AGAIN
    return Outcome(
        False, f"answered {status}{hint}", status, again, _retry_after(response) if again else None
    )


def _retry_after(response: httpx.Response) -> float | None:
    try:
        seconds = float(response.headers.get("retry-after", ""))
    except ValueError:  # a date, or nothing: our own pause is as good
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT_S) if seconds == seconds else None
