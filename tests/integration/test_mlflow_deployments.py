"""MLflow's deployment client, unmodified, manages and calls endpoints of servelens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before the import, which reads it

from mlflow.deployments import get_deploy_client
from mlflow.deployments.databricks import DatabricksDeploymentClient
from requests import HTTPError

from tests.integration.backend_process import backend_process, endpoint
from tests.integration.outside_calls import outside_calls
from tests.integration.system import System, wait_until


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with backend_process() as url:
        yield url


@pytest.fixture(scope="module")
def system(backend: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    with System(tmp_path_factory.mktemp("system"), [endpoint("filed", backend)]) as running:
        yield running


@pytest.fixture
def client(
    system: System, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[DatabricksDeploymentClient]:
    """The client as a user has it, and proof that it asked nobody else."""
    monkeypatch.setenv("DATABRICKS_HOST", system.proxy_url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "x")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "none"))
    with outside_calls() as outside:
        yield get_deploy_client("databricks")
    assert outside == []


def entity(url: str, name: str = "gpt") -> dict[str, Any]:
    return {
        "name": name,
        "external_model": {
            "name": "gpt-4o",
            "provider": "openai",
            "task": "llm/v1/chat",
            "openai_config": {"openai_api_base": f"{url}/v1", "openai_api_key_plaintext": "sk-secret"},
        },
    }


def test_the_whole_life_of_an_endpoint(client: DatabricksDeploymentClient, backend: str) -> None:
    def is_live() -> bool:
        return bool(client.get_endpoint("life").state == {"ready": "READY", "config_update": "NOT_UPDATING"})

    created = client.create_endpoint(
        config={"name": "life", "config": {"served_entities": [entity(backend)]}}
    )
    assert created.name == "life"
    assert created.endpoint_type == "EXTERNAL_MODEL"
    wait_until(is_live, 5, "the endpoint is live")
    assert [each["name"] for each in client.list_endpoints()] == ["filed", "life"]
    messages = {"messages": [{"role": "user", "content": "hello"}]}
    answer = client.predict(endpoint="life", inputs=messages)
    assert answer.choices[0]["message"]["content"] == "echo: hello"
    chunks = list(client.predict_stream(endpoint="life", inputs=messages))
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == "echo: hello"

    updated = client.update_endpoint_config("life", {"served_entities": [entity(backend, "other")]})
    assert updated.name == "life"
    wait_until(is_live, 5, "the update is live")
    assert client.get_endpoint("life").config["served_entities"][0]["name"] == "other"
    limits = {"rate_limits": [{"calls": 1000, "key": "endpoint", "renewal_period": "minute"}]}
    assert client.update_endpoint_rate_limits("life", limits) == limits
    gateway = {"usage_tracking_config": {"enabled": True}}
    assert client.update_endpoint_ai_gateway("life", gateway) == gateway
    tags = client.update_endpoint_tags("life", {"add_tags": [{"key": "project", "value": "test"}]})
    assert tags == {"tags": [{"key": "project", "value": "test"}]}
    assert client.predict(endpoint="life", inputs=messages).choices
    assert client.delete_endpoint("life") == {}
    with pytest.raises(HTTPError, match="RESOURCE_DOES_NOT_EXIST"):
        client.get_endpoint("life")


def test_the_older_way_to_create_and_to_change(client: DatabricksDeploymentClient, backend: str) -> None:
    with pytest.warns(UserWarning, match="deprecated"):
        client.create_endpoint(
            name="old",
            config={
                "served_entities": [entity(backend)],
                "tags": [{"key": "a", "value": "b"}],
                "rate_limits": [{"calls": 5, "key": "user", "renewal_period": "minute"}],
            },
        )
    made = client.get_endpoint("old")
    assert made.tags == [{"key": "a", "value": "b"}]
    assert made.ai_gateway["rate_limits"][0]["calls"] == 5
    with pytest.warns((UserWarning, FutureWarning), match="deprecated"):
        changed = client.update_endpoint("old", {"served_entities": [entity(backend, "new")]})
    assert changed.name == "old"
    client.delete_endpoint("old")


def test_a_mistake_is_told_with_its_field(client: DatabricksDeploymentClient) -> None:
    with pytest.raises(HTTPError, match=r"config\.served_entities\[0\]"):
        client.create_endpoint(
            config={
                "name": "own",
                "config": {"served_entities": [{"entity_name": "m", "entity_version": "1"}]},
            }
        )
