"""What Databricks' clients send becomes endpoint settings, or an error that names the field and the fix."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from servelens.clock import SystemClock
from servelens.control.endpoint_requests import (
    changed_config,
    changed_gateway,
    changed_rate_limits,
    changed_tags,
    new_endpoint,
)
from servelens.control.store import EndpointStore
from servelens.control.stored_settings import to_json
from servelens.errors import Invalid
from servelens.secret_references import MASK
from tests.new_database import new_database
from tests.unit.servelens.control_settings import REFERENCE, backend, openai_model, routes, stored


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EndpointStore]:
    database = new_database(tmp_path / "servelens.db")
    yield EndpointStore(database, SystemClock())
    database.dispose()


def created(*entities: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What is stored of a request to create ``chat``."""
    config = {"name": "chat", "served_entities": list(entities), **more.pop("config", {})}
    return to_json(new_endpoint({"name": "chat", "config": config, **more})[0])


def test_a_providers_model_with_a_reference_to_its_key() -> None:
    entity = created(openai_model())["config"]["served_entities"][0]
    assert entity["external_model"]["openai_config"] == {"openai_api_key_plaintext": REFERENCE}


@pytest.mark.parametrize(
    ("provider", "config"),
    [
        ("anthropic", {"anthropic_config": {"anthropic_api_key": REFERENCE}}),
        ("cohere", {"cohere_config": {"cohere_api_key_plaintext": "k", "cohere_api_base": "http://c"}}),
        ("ai21labs", {"ai21labs_config": {"ai21labs_api_key": REFERENCE}}),
        (
            "custom",
            {
                "custom_provider_config": {
                    "custom_provider_url": "http://gpu",
                    "bearer_token_auth": {"token": REFERENCE},
                }
            },
        ),
    ],
)
def test_every_provider_is_taken(provider: str, config: dict[str, Any]) -> None:
    external = {"name": "m", "provider": provider, "task": "llm/v1/chat", **config}
    entity = created({"external_model": external})["config"]["served_entities"][0]
    assert entity["name"] == "m"
    assert entity["external_model"]["provider"] == provider


def test_a_backend_of_ones_own_and_what_sizes_databricks_compute_means_nothing() -> None:
    sized = {
        **backend(),
        "entity_name": "main.models.m",
        "entity_version": "3",
        "workload_size": "Small",
        "workload_type": "GPU_SMALL",
        "scale_to_zero_enabled": True,
        "min_provisioned_concurrency": 4,
    }
    entity = created(sized)["config"]["served_entities"][0]
    assert entity == {**backend(), "entity_version": "3"}


def test_a_served_entity_without_a_name_gets_one() -> None:
    external = {**openai_model()["external_model"], "name": "meta/llama-3"}
    assert created({"external_model": external})["config"]["served_entities"][0]["name"] == "meta-llama-3"
    unnamed = {"backend": {"urls": ["http://g"]}, "entity_name": "main.m.fraud", "entity_version": "7"}
    assert created(unnamed)["config"]["served_entities"][0]["name"] == "main.m.fraud-7"


def test_routes_may_use_the_old_name_of_their_field() -> None:
    route = {"served_model_name": "champion", "traffic_percentage": 100}
    config = created(backend(), config={"traffic_config": {"routes": [route]}})["config"]
    assert config["traffic_config"] == routes(champion=100)


def test_the_rest_of_a_request_to_create() -> None:
    limit = {"calls": 5, "renewal_period": "minute", "key": "user"}
    endpoint, description = new_endpoint(
        {
            "name": "chat",
            "config": {"served_entities": [backend()]},
            "rate_limits": [limit],
            "route_optimized": False,
            "description": "for tests",
            "tags": [{"key": "team", "value": "a"}, {"key": "bare"}],
            "budget_policy_id": None,
        }
    )
    assert description == "for tests"
    assert endpoint.ai_gateway.rate_limits[0].calls == 5
    assert [(tag.key, tag.value) for tag in endpoint.tags] == [("team", "a"), ("bare", "")]


@pytest.mark.parametrize(
    ("body", "field", "text"),
    [
        ({"config": {"served_entities": [backend()]}}, "name", "is missing"),
        ({"name": "chat"}, "config", "is missing"),
        ({"name": "a b", "config": {"served_entities": [backend()]}}, "name", "not a name"),
        ({"name": "chat", "config": {"served_entities": []}}, "config.served_entities", "at least 1"),
        ({"name": "chat", "config": {"served_entities": {}}}, "config.served_entities", "not a list"),
        (
            {"name": "chat", "config": {"served_entities": [{"entity_name": "m", "entity_version": "1"}]}},
            "config.served_entities[0]",
            "Give 'external_model', or 'backend'",
        ),
        (
            {"name": "chat", "config": {"served_models": [{"model_name": "m"}]}},
            "config.served_models",
            "Use 'served_entities'",
        ),
        (
            {"name": "chat", "config": {"auto_capture_config": {"enabled": True}}},
            "config.auto_capture_config",
            "inference_table_config",
        ),
        (
            {
                "name": "chat",
                "config": {"served_entities": [{**backend(), "environment_vars": {"A": "b"}}]},
            },
            "config.served_entities[0].environment_vars",
            "where it runs",
        ),
        (
            {"name": "chat", "config": {"served_entities": [backend(mode="fast")]}},
            "config.served_entities[0].backend.mode",
            "no such field",
        ),
        (
            {"name": "chat", "config": {"served_entities": [openai_model(openai_api_key="sk-1")]}},
            "config.served_entities[0].external_model.openai_config.openai_api_key",
            "openai_api_key_plaintext",
        ),
        (
            {"name": "chat", "config": {"served_entities": [openai_model(openai_organization="o")]}},
            "config.served_entities[0].external_model.openai_config.openai_organization",
            "no such field",
        ),
        (
            {
                "name": "chat",
                "config": {
                    "served_entities": [
                        {"external_model": {"name": "m", "provider": "palm", "task": "llm/v1/chat"}}
                    ]
                },
            },
            "config.served_entities[0].external_model.provider",
            "Input should be",
        ),
        (
            {"name": "chat", "config": {"served_entities": [backend("a"), backend("b")]}},
            "config.traffic_config",
            "is missing",
        ),
        (
            {
                "name": "chat",
                "config": {"served_entities": [backend()], "traffic_config": routes(champion=90)},
            },
            "config.traffic_config.routes",
            "adds up to 90",
        ),
        (
            {"name": "chat", "config": {"served_entities": [backend(api_key=MASK)]}},
            "config.served_entities[0]",
            "stands for a secret",
        ),
        (
            {
                "name": "chat",
                "config": {"served_entities": [backend()]},
                "email_notifications": {"on_update_failure": ["a@b"]},
            },
            "email_notifications",
            "sends no mail",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(body: dict[str, Any], field: str, text: str) -> None:
    with pytest.raises(Invalid) as refused:
        new_endpoint(body)
    assert refused.value.field == field
    assert text in str(refused.value)


def test_served_entities_are_replaced_and_routes_that_still_fit_stay(store: EndpointStore) -> None:
    endpoint = stored(store, backend("a"), backend("b"))
    more = changed_config(endpoint, {"served_entities": [backend("a"), backend("c")]})
    assert [entity.name for entity in more.config.served_entities] == ["a", "c"]
    assert to_json(more)["config"]["traffic_config"] == routes(a=100)
    other = changed_config(endpoint, {"served_entities": [backend("c")]})
    assert other.config.traffic_config is None
    split = changed_config(endpoint, {"traffic_config": routes(a=40, b=60)})
    assert [entity.name for entity in split.config.served_entities] == ["a", "b"]


def test_a_change_of_routes_names_the_field_as_the_client_wrote_it(store: EndpointStore) -> None:
    endpoint = stored(store, backend("a"))
    with pytest.raises(Invalid) as refused:
        changed_config(endpoint, {"traffic_config": routes(a=50, z=50)})
    assert refused.value.field == "traffic_config.routes[1].served_entity_name"
    with pytest.raises(Invalid, match="Give served_entities, traffic_config or both"):
        changed_config(endpoint, {})


def test_what_was_read_can_be_written_back_without_knowing_the_secret(store: EndpointStore) -> None:
    endpoint = stored(store, backend("a", api_key="sk-1"))
    shown = endpoint.shown["config"]["served_entities"][0]
    assert shown["backend"]["api_key"] == MASK
    same = changed_config(endpoint, {"served_entities": [{**shown, "creator": "ann", "state": {}}]})
    key = same.config.served_entities[0].backend
    assert key is not None
    assert key.api_key is not None
    assert key.api_key.get_secret_value() == "sk-1"


def test_a_hidden_secret_is_not_sent_to_another_address(store: EndpointStore) -> None:
    endpoint = stored(store, backend("a", api_key="sk-1"))
    with pytest.raises(Invalid, match="at this address"):
        changed_config(endpoint, {"served_entities": [backend("a", "http://elsewhere", api_key=MASK)]})
    with pytest.raises(Invalid, match="at this address"):
        changed_config(endpoint, {"served_entities": [backend("b", api_key=MASK)]})
    without = stored_without_key(store)
    with pytest.raises(Invalid, match="not stored"):
        changed_config(without, {"served_entities": [backend("a", api_key=MASK)]})


def stored_without_key(store: EndpointStore) -> Any:
    store.delete("chat", by="ann", check=lambda _: None)
    return stored(store, backend("a"))


def test_another_gateway_does_not_end_the_redaction_of_records(store: EndpointStore) -> None:
    endpoint = stored(
        store,
        ai_gateway={
            "inference_table_config": {"redact_paths": ["$.user"], "payload_logging": "metadata"},
            "concurrency": {"max_concurrency": 3},
            "rate_limits": [{"calls": 1}],
        },
    )
    changed = changed_gateway(endpoint, {"fallback_config": {"enabled": True}, "guardrails": None})
    gateway = changed.ai_gateway
    assert gateway.fallback_config.enabled
    assert gateway.rate_limits == []
    assert gateway.inference_table_config.redact_paths == ["$.user"]
    assert gateway.inference_table_config.payload_logging == "metadata"
    assert gateway.concurrency.max_concurrency == 3
    asked = changed_gateway(endpoint, {"inference_table_config": {"redact_paths": [], "enabled": False}})
    assert asked.ai_gateway.inference_table_config.redact_paths == []
    assert not asked.ai_gateway.inference_table_config.enabled
    with pytest.raises(Invalid) as refused:
        changed_gateway(endpoint, {"guardrails": {"input": {"safety": {"action": "warn"}}}})
    assert refused.value.field == "guardrails.input.safety.action"


@pytest.mark.parametrize("safety", [True, False, {"action": "mask", "threshold": 0.8}])
def test_safety_is_stored_and_shown_as_it_was_given(store: EndpointStore, safety: Any) -> None:
    given = {"guardrails": {"input": {"safety": safety, "pii": {"behavior": "NONE"}}}}
    changed = changed_gateway(stored(store), given)
    assert to_json(changed)["ai_gateway"]["guardrails"] == given["guardrails"]
    assert changed.ai_gateway.guardrails.ask_scorer == bool(safety)


def test_rate_limits_alone(store: EndpointStore) -> None:
    endpoint = stored(store, ai_gateway={"fallback_config": {"enabled": True}})
    changed = changed_rate_limits(
        endpoint, {"rate_limits": [{"calls": 9, "renewal_period": "minute", "key": "endpoint"}]}
    )
    assert changed.ai_gateway.rate_limits[0].calls == 9
    assert changed.ai_gateway.fallback_config.enabled


def test_tags_are_added_replaced_and_removed(store: EndpointStore) -> None:
    endpoint = stored(store, tags=[{"key": "team", "value": "a"}, {"key": "old"}])
    changed = changed_tags(
        endpoint,
        {"add_tags": [{"key": "team", "value": "b"}, {"key": "new"}], "delete_tags": ["old", "never"]},
    )
    assert [(tag.key, tag.value) for tag in changed.tags] == [("team", "b"), ("new", "")]
    for body, field in (
        ({"tags": []}, "tags"),
        ({"delete_tags": [1]}, "delete_tags[0]"),
        ({"add_tags": ["x"]}, "add_tags[0]"),
        ({"add_tags": [{"key": ""}]}, "tags[2].key"),
    ):
        with pytest.raises(Invalid) as refused:
            changed_tags(endpoint, body)
        assert refused.value.field == field
