"""A call of a real SDK client through a real worker to a provider that speaks another dialect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anthropic
import openai

from serving_proxy.endpoint import BackendApi, Overrides
from tests.providers.ai21_provider import AI21Provider
from tests.providers.anthropic_provider import AnthropicProvider
from tests.providers.cohere_provider import CohereProvider
from tests.providers.provider import KEY, Provider
from tests.unit.serving_proxy.running_proxy import RunningProxy, one_entity, running_proxy

PROVIDERS: dict[BackendApi, type[Provider]] = {
    "anthropic": AnthropicProvider,
    "cohere": CohereProvider,
    "ai21labs": AI21Provider,
}


@dataclass
class Through:
    """Both clients of a proxy whose endpoint ``chat`` is served by ``provider``."""

    provider: Provider
    proxy: RunningProxy
    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic


@asynccontextmanager
async def through(
    root: Path, api: BackendApi, *, piece_bytes: int = 37, overrides: Overrides | None = None
) -> AsyncIterator[Through]:
    """A provider, a proxy in front of it, and clients that only know the proxy."""
    async with PROVIDERS[api](piece_bytes=piece_bytes) as provider:
        snapshot = one_entity(provider.url, api=api, model="their-model", api_key=KEY, overrides=overrides)
        async with (
            running_proxy(root, snapshot) as proxy,
            openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="ours", max_retries=0) as of_openai,
            anthropic.AsyncAnthropic(base_url=proxy.url, api_key="ours", max_retries=0) as of_anthropic,
        ):
            yield Through(provider, proxy, of_openai, of_anthropic)
