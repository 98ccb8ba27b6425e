"""External providers behind a whole servelens: an endpoint for each, by the name of its provider."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from tests.integration.recorded import by_id, recorded
from tests.integration.system import System, wait_until
from tests.providers.ai21_provider import AI21Provider
from tests.providers.anthropic_provider import AnthropicProvider
from tests.providers.cohere_provider import CohereProvider
from tests.providers.openai_provider import OpenAIProvider
from tests.providers.provider import KEY, Provider, in_thread


@dataclass
class Providers:
    """The running system and the providers by the API they speak."""

    system: System
    by_api: dict[str, Provider]

    def received(self, api: str) -> Any:
        """The body of the last call that the provider took."""
        return self.by_api[api].received[-1].json()

    def row(self, endpoint: str, request_id: str) -> dict[str, Any]:
        """The record of one request, once it is readable; fails after the five seconds that are promised."""
        return recorded(self.system, endpoint, by_id(request_id), within_s=5)

    def last_row(self, endpoint: str, after: float) -> dict[str, Any]:
        """The record of the last request since ``after`` (as ``time.time()`` has it)."""
        table = self.system.tables(endpoint).payload
        found: list[dict[str, Any]] = []

        def readable() -> bool:
            rows = table.scan().filter(pl.col("request_time").dt.epoch("us") >= after * 1e6).collect()
            found[:] = rows.sort("request_time").iter_rows(named=True)
            return bool(found)

        wait_until(readable, 5 + time.time() - after, "a record is readable in the table")
        return found[-1]


def endpoint_of(api: str, url: str) -> dict[str, Any]:
    """Settings of the endpoint that is named like its provider's API."""
    backend = {"urls": [url], "api": api, "model": "their-model", "api_key": KEY}
    return {"name": api, "config": {"served_entities": [{"name": "external", "backend": backend}]}}


@contextmanager
def providers_behind(folder: Path) -> Iterator[Providers]:
    """All providers and a system in front of them."""
    with (
        in_thread(OpenAIProvider()) as openai,
        in_thread(AnthropicProvider()) as anthropic,
        in_thread(CohereProvider()) as cohere,
        in_thread(AI21Provider()) as ai21,
    ):
        by_api: dict[str, Provider] = {
            "openai": openai,
            "anthropic": anthropic,
            "cohere": cohere,
            "ai21labs": ai21,
        }
        endpoints = [endpoint_of(api, provider.url) for api, provider in by_api.items()]
        with System(folder, endpoints, wait_for=("proxy",)) as system:
            yield Providers(system, by_api)
