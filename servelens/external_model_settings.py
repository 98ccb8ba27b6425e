"""The settings of a provider's model, in the shape of Databricks' ``external_model``.

Keys are given as ``…_plaintext``, where ``${NAME}`` takes them from the environment. Of a provider's config the
address is optional; where Databricks knows no such field, ours is named like theirs (``anthropic_api_base``).
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, Self

from pydantic import Field, SecretStr, model_validator

from servelens.section import Section

Provider = Literal["openai", "anthropic", "cohere", "ai21labs", "custom"]
ProviderApi = Literal["openai", "anthropic", "cohere", "ai21labs"]

_BASE: Final = "Address of the API. Default: the provider's own."
_KEY: Final = "The provider's API key."


class OpenAIConfig(Section):
    """OpenAI, or a server that speaks as it does."""

    openai_api_key_plaintext: SecretStr | None = Field(None, description=_KEY)
    openai_api_base: str = Field("https://api.openai.com/v1", description=_BASE)
    openai_api_type: Literal["openai"] = Field("openai", description="Azure's variant is not offered.")


class AnthropicConfig(Section):
    """Anthropic."""

    anthropic_api_key_plaintext: SecretStr | None = Field(None, description=_KEY)
    anthropic_api_base: str = Field("https://api.anthropic.com", description=_BASE)


class CohereConfig(Section):
    """Cohere, API version 2."""

    cohere_api_key_plaintext: SecretStr | None = Field(None, description=_KEY)
    cohere_api_base: str = Field("https://api.cohere.com", description=_BASE)


class AI21Config(Section):
    """AI21 Labs."""

    ai21labs_api_key_plaintext: SecretStr | None = Field(None, description=_KEY)
    ai21labs_api_base: str = Field("https://api.ai21.com/studio/v1", description=_BASE)


class BearerTokenAuth(Section):
    """A token that is sent as ``Authorization: Bearer``."""

    token_plaintext: SecretStr = Field(description="The token.")


class CustomProviderConfig(Section):
    """Any server that speaks OpenAI's wire format."""

    custom_provider_url: str = Field(description="Address of the API.")
    bearer_token_auth: BearerTokenAuth | None = Field(None, description="Bearer token.")


class Place(NamedTuple):
    """Where a provider's API is, and what it speaks."""

    url: str
    api: ProviderApi
    key: SecretStr | None


class ExternalModelSettings(Section):
    """A provider's model."""

    name: str = Field(min_length=1, description="The provider's name of the model.")
    provider: Provider = Field(description="Who serves it.")
    task: Literal["llm/v1/chat", "llm/v1/completions", "llm/v1/embeddings"] = Field(
        "llm/v1/chat", description="What it does."
    )
    openai_config: OpenAIConfig | None = Field(None, description="For `provider: openai`.")
    anthropic_config: AnthropicConfig | None = Field(None, description="For `provider: anthropic`.")
    cohere_config: CohereConfig | None = Field(None, description="For `provider: cohere`.")
    ai21labs_config: AI21Config | None = Field(None, description="For `provider: ai21labs`.")
    custom_provider_config: CustomProviderConfig | None = Field(None, description="For `provider: custom`.")

    @model_validator(mode="after")
    def _own_config(self) -> Self:
        wanted = "custom_provider_config" if self.provider == "custom" else f"{self.provider}_config"
        for name in _CONFIGS:
            if (getattr(self, name) is not None) != (name == wanted):
                raise ValueError(f"{name}: provider '{self.provider}' needs '{wanted}' and no other config.")
        return self

    @property
    def place(self) -> Place:
        """Address, wire format and key."""
        if self.openai_config is not None:
            openai = self.openai_config
            return Place(openai.openai_api_base, "openai", openai.openai_api_key_plaintext)
        if self.anthropic_config is not None:
            anthropic = self.anthropic_config
            return Place(anthropic.anthropic_api_base, "anthropic", anthropic.anthropic_api_key_plaintext)
        if self.cohere_config is not None:
            cohere = self.cohere_config
            return Place(cohere.cohere_api_base, "cohere", cohere.cohere_api_key_plaintext)
        if self.ai21labs_config is not None:
            ai21 = self.ai21labs_config
            return Place(ai21.ai21labs_api_base, "ai21labs", ai21.ai21labs_api_key_plaintext)
        custom = self.custom_provider_config
        assert custom is not None
        token = custom.bearer_token_auth
        return Place(custom.custom_provider_url, "openai", token.token_plaintext if token else None)


_CONFIGS: Final = (
    "openai_config",
    "anthropic_config",
    "cohere_config",
    "ai21labs_config",
    "custom_provider_config",
)
