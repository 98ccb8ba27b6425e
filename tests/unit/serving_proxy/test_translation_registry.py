"""Which pairs of a call and an API need a translation, which need none, and which there are not."""

from __future__ import annotations

from typing import Any

import pytest

from servelens.errors import Invalid
from serving_proxy.translation.registry import translation_for


@pytest.mark.parametrize(
    ("kind", "api"),
    [
        *(("chat", "openai"), ("completions", "openai"), ("embeddings", "openai"), ("responses", "openai")),
        *(("messages", "anthropic"), ("scoring", "mlflow"), ("chat", "mlflow"), ("infer", "kserve")),
    ],
)
def test_the_same_dialect_needs_no_translation(kind: str, api: Any) -> None:
    assert translation_for(kind, api) is None


@pytest.mark.parametrize(
    ("kind", "api", "fix"),
    [
        ("completions", "anthropic", "Send Anthropic's messages or 'messages' (chat)."),
        ("embeddings", "ai21labs", "Send 'messages' (chat) or Anthropic's messages."),
        ("scoring", "openai", "(chat) or 'prompt' (completion)"),
        ("messages", "kserve", "tensors"),
        ("responses", "cohere", "'input' (embeddings)"),
    ],
)
def test_a_pair_without_a_translation_says_what_could_be_asked(kind: str, api: Any, fix: str) -> None:
    with pytest.raises(Invalid) as caught:
        translation_for(kind, api)
    assert caught.value.fix is not None
    assert fix in caught.value.fix
