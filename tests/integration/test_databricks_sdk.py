"""databricks-sdk, unmodified, manages and calls endpoints of servelens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.errors import (
    BadRequest,
    InvalidParameterValue,
    NotFound,
    ResourceAlreadyExists,
    ResourceConflict,
    ResourceDoesNotExist,
)
from databricks.sdk.service import serving
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.outside_calls import outside_calls
from tests.integration.system import System

PATIENCE = timedelta(seconds=20)


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with backend_process() as url:
        yield url


@pytest.fixture(scope="module")
def system(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Two workers, with an experiment on the endpoint of the file."""
    experiment = {
        "name": "ab",
        "endpoint": "filed",
        "control": {"served_entity": "a", "weight": 50},
        "treatments": [{"served_entity": "b", "weight": 50}],
    }
    with System(
        tmp_path_factory.mktemp("system"),
        [endpoint("filed", backend, {"a": 50.0, "b": 50.0})],
        {"proxy": {"workers": 2}, "experiments": [experiment]},
    ) as running:
        yield running


@pytest.fixture
def client(system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkspaceClient]:
    """The SDK as a user has it, and proof that it asked nobody else."""
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    with outside_calls() as outside:
        yield WorkspaceClient(host=system.proxy_url, token="x")
    assert outside == []


def external(url: str, name: str = "gpt") -> serving.ServedEntityInput:
    return serving.ServedEntityInput(
        name=name,
        external_model=serving.ExternalModel(
            provider=serving.ExternalModelProvider.OPENAI,
            name="gpt-4o",
            task="llm/v1/chat",
            openai_config=serving.OpenAiConfig(
                openai_api_base=f"{url}/v1", openai_api_key_plaintext="sk-secret"
            ),
        ),
    )


def config(name: str, *entities: serving.ServedEntityInput) -> serving.EndpointCoreConfigInput:
    routes = [
        serving.Route(served_entity_name=entity.name, traffic_percentage=100 // len(entities))
        for entity in entities
    ]
    return serving.EndpointCoreConfigInput(
        name=name,
        served_entities=list(entities),
        traffic_config=serving.TrafficConfig(routes=routes),
    )


def hello(client: WorkspaceClient, name: str) -> serving.QueryEndpointResponse:
    message = serving.ChatMessage(role=serving.ChatMessageRole.USER, content="hello")
    return client.serving_endpoints.query(name, messages=[message])


def test_the_whole_life_of_an_endpoint(client: WorkspaceClient, backend: str) -> None:
    endpoints = client.serving_endpoints
    began = time.monotonic()
    created = endpoints.create_and_wait(
        "life",
        config=config("life", external(backend)),
        tags=[serving.EndpointTag("team", "a")],
        ai_gateway=serving.AiGatewayConfig(
            usage_tracking_config=serving.AiGatewayUsageTrackingConfig(enabled=True)
        ),
        timeout=PATIENCE,
    )
    assert time.monotonic() - began < PATIENCE.total_seconds()
    assert created.state == serving.EndpointState(
        ready=serving.EndpointStateReady.READY, config_update=serving.EndpointStateConfigUpdate.NOT_UPDATING
    )
    assert created.config is not None
    assert created.config.config_version == 1
    assert created.tags == [serving.EndpointTag("team", "a")]
    assert created.task == "llm/v1/chat"
    assert "sk-secret" not in str(created.as_dict())
    answer = hello(client, "life")
    assert answer.choices is not None
    assert answer.choices[0].message is not None
    assert answer.choices[0].message.content == "echo: hello"

    updated = endpoints.update_config_and_wait(
        "life",
        served_entities=[external(backend, "one"), external(backend, "two")],
        traffic_config=config("life", external(backend, "one"), external(backend, "two")).traffic_config,
        timeout=PATIENCE,
    )
    assert updated.config is not None
    assert updated.config.config_version == 2
    assert [entity.name for entity in updated.config.served_entities or []] == ["one", "two"]
    assert updated.id == created.id
    assert hello(client, "life").id

    gateway = endpoints.put_ai_gateway(
        "life",
        rate_limits=[
            serving.AiGatewayRateLimit(
                calls=1000,
                key=serving.AiGatewayRateLimitKey.USER,
                renewal_period=serving.AiGatewayRateLimitRenewalPeriod.MINUTE,
            )
        ],
        fallback_config=serving.FallbackConfig(enabled=True),
    )
    assert gateway.rate_limits is not None
    assert gateway.rate_limits[0].calls == 1000
    assert gateway.fallback_config == serving.FallbackConfig(enabled=True)
    legacy = endpoints.put(
        "life",
        rate_limits=[serving.RateLimit(calls=2000, renewal_period=serving.RateLimitRenewalPeriod.MINUTE)],
    )
    assert legacy.rate_limits is not None
    assert legacy.rate_limits[0].calls == 2000
    tags = endpoints.patch("life", add_tags=[serving.EndpointTag("cost", "b")], delete_tags=["team"])
    assert tags.tags == [serving.EndpointTag("cost", "b")]
    assert {each.name for each in endpoints.list()} >= {"life", "filed"}

    endpoints.delete("life")
    with pytest.raises(ResourceDoesNotExist):
        endpoints.get("life")


def test_metrics_and_the_description_of_its_calls(client: WorkspaceClient, backend: str) -> None:
    endpoints = client.serving_endpoints
    endpoints.create_and_wait("told", config=config("told", external(backend)), timeout=PATIENCE)
    hello(client, "told")
    exported = endpoints.export_metrics("told").contents
    assert exported is not None
    families = {f.name: f for f in text_string_to_metric_families(exported.read().decode())}
    assert {"request_count_total", "request_4xx_count_total", "request_latency_ms"} <= families.keys()
    described = endpoints.get_open_api("told").contents
    assert described is not None
    assert b'"/v1/chat/completions"' in described.read()
    endpoints.delete("told")


def test_errors_are_the_sdks_own_exceptions(client: WorkspaceClient, backend: str) -> None:
    endpoints = client.serving_endpoints
    with pytest.raises(ResourceAlreadyExists, match="'filed'"):
        endpoints.create("filed", config=config("filed", external(backend)))
    own = serving.ServedEntityInput(
        name="m", entity_name="main.models.m", entity_version="1", workload_size="Small"
    )
    with pytest.raises(InvalidParameterValue, match="Give 'external_model', or 'backend'"):
        endpoints.create("own", config=config("own", own))
    with pytest.raises(ResourceConflict, match="experiment 'ab'"):
        endpoints.delete("filed")
    with pytest.raises(ResourceConflict, match="experiment 'ab'"):
        endpoints.update_config("filed", served_entities=[external(backend, "a")])
    with pytest.raises(NotFound, match="no permissions on single endpoints"):
        endpoints.get_permissions("x")
    with pytest.raises(NotFound, match="logs are where they run"):
        endpoints.logs("filed", "a")
    with pytest.raises(NotFound, match="provisioned throughput"):
        endpoints.create_provisioned_throughput_endpoint(
            "pt",
            serving.PtEndpointCoreConfig(
                served_entities=[
                    serving.PtServedModel(entity_name="m", entity_version="1", provisioned_model_units=1)
                ]
            ),
        )
    with pytest.raises(BadRequest, match="sends no mail"):
        endpoints.create(
            "mail",
            config=config("mail", external(backend)),
            email_notifications=serving.EmailNotifications(on_update_failure=["a@b"]),
        )


def test_an_endpoint_that_was_read_can_be_written_back(client: WorkspaceClient, backend: str) -> None:
    endpoints = client.serving_endpoints
    endpoints.create_and_wait("again", config=config("again", external(backend)), timeout=PATIENCE)
    read = endpoints.get("again").config
    assert read is not None
    assert read.served_entities is not None
    entities = [serving.ServedEntityInput.from_dict(entity.as_dict()) for entity in read.served_entities]
    endpoints.update_config_and_wait(
        "again", served_entities=entities, traffic_config=read.traffic_config, timeout=PATIENCE
    )
    assert hello(client, "again").choices
    endpoints.delete("again")
