"""Which translation stands between what a client asks and the API that a backend speaks.

``None`` means that both are the same, so bytes pass unchanged. A pair without a translation is refused, with what
the backend could be asked instead.
"""

from __future__ import annotations

from typing import Final

from servelens.errors import Invalid, ServelensError
from serving_proxy.translation.chat_translations import (
    ChatToAI21,
    ChatToAnthropic,
    ChatToCohere,
    EmbeddingsToCohere,
)
from serving_proxy.translation.kserve_to_scoring import KServeToScoring
from serving_proxy.translation.messages_translations import MessagesThroughChat, MessagesToChat
from serving_proxy.translation.scoring_to_kserve import ScoringToKServe
from serving_proxy.translation.translation import Translation

_SAME: Final = {
    "openai": ("chat", "completions", "embeddings", "responses"),
    "anthropic": ("messages",),
    "mlflow": ("scoring", "chat", "completions", "embeddings"),
    "kserve": ("infer",),
}
_TRANSLATIONS: Final[dict[tuple[str, str], Translation]] = {
    ("chat", "anthropic"): ChatToAnthropic(),
    ("chat", "cohere"): ChatToCohere(),
    ("chat", "ai21labs"): ChatToAI21(),
    ("embeddings", "cohere"): EmbeddingsToCohere(),
    ("messages", "openai"): MessagesToChat(),
    ("messages", "cohere"): MessagesThroughChat(ChatToCohere()),
    ("messages", "ai21labs"): MessagesThroughChat(ChatToAI21()),
    ("scoring", "kserve"): ScoringToKServe(),
    ("infer", "mlflow"): KServeToScoring(),
}
_TABLE: Final[dict[tuple[str, str], Translation | None]] = {
    **{(kind, api): None for api, kinds in _SAME.items() for kind in kinds},
    **_TRANSLATIONS,
}
_WORDS: Final = {
    "chat": "'messages' (chat)",
    "completions": "'prompt' (completion)",
    "embeddings": "'input' (embeddings)",
    "messages": "Anthropic's messages",
    "responses": "OpenAI's responses",
    "scoring": "a scoring input",
    "infer": "tensors",
}


def translation_for(kind: str, backend_api: str) -> Translation | None:
    """The translation, or ``None`` when bytes pass. Raises Invalid when the backend cannot be asked this."""
    try:
        return _TABLE[kind, backend_api]
    except KeyError:
        raise _no_translation(kind, backend_api) from None


def _no_translation(kind: str, backend_api: str) -> ServelensError:
    possible = [_WORDS[known] for known, api in _TABLE if api == backend_api]
    is_model = backend_api not in ("mlflow", "kserve")
    what = (
        "is a language model and"
        if is_model and kind in ("scoring", "infer")
        else f"speaks {backend_api!r} and"
    )
    return Invalid(
        f"The served entity {what} cannot be asked with {_WORDS.get(kind, kind)}.",
        field="body",
        fix=f"Send {' or '.join(possible)}.",
    )
