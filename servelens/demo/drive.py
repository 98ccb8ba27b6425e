"""Sends the demo's prompts through the proxy with the ``openai`` client, as an app would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import openai

from servelens.demo.prompts import Prompt

_CALLERS = 2
_MAX_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call gave: the table's id of its record, or the error."""

    prompt: Prompt
    request_id: str | None
    text: str
    error: str | None


def drive(
    proxy_url: str, endpoint: str, prompts: Sequence[Prompt], on_answer: Callable[[Answer], None]
) -> list[Answer]:
    """Send all prompts, two at a time; ``on_answer`` is called as answers come."""
    with openai.OpenAI(base_url=f"{proxy_url}/v1", api_key="none", max_retries=0, timeout=120) as client:

        def send(prompt: Prompt) -> Answer:
            try:
                answer = (
                    _stream(client, endpoint, prompt) if prompt.stream else _ask(client, endpoint, prompt)
                )
            except openai.APIError as error:
                answer = Answer(prompt, None, "", f"{type(error).__name__}: {error}")
            on_answer(answer)
            if answer.request_id is not None and prompt.thumbs is not None:
                _rate(client, endpoint, answer.request_id, prompt)
            return answer

        with ThreadPoolExecutor(_CALLERS) as pool:
            return list(pool.map(send, prompts))


def _rate(client: openai.OpenAI, endpoint: str, request_id: str, prompt: Prompt) -> None:
    feedback = {"request_id": request_id, "model": endpoint, "thumbs": prompt.thumbs, "user": prompt.user}
    client.post("/feedback", body=feedback, cast_to=object)


def _ask(client: openai.OpenAI, endpoint: str, prompt: Prompt) -> Answer:
    raw = client.chat.completions.with_raw_response.create(
        model=endpoint,
        messages=[{"role": "user", "content": prompt.text}],
        max_tokens=_MAX_TOKENS,
        user=prompt.user,
    )
    return Answer(prompt, raw.headers["x-request-id"], raw.parse().choices[0].message.content or "", None)


def _stream(client: openai.OpenAI, endpoint: str, prompt: Prompt) -> Answer:
    with client.chat.completions.with_raw_response.create(
        model=endpoint,
        messages=[{"role": "user", "content": prompt.text}],
        max_tokens=_MAX_TOKENS,
        user=prompt.user,
        stream=True,
        stream_options={"include_usage": True},
    ).parse() as stream:
        request_id = stream.response.headers["x-request-id"]
        pieces = [choice.delta.content or "" for chunk in stream for choice in chunk.choices]
    return Answer(prompt, request_id, "".join(pieces), None)
