"""``mlflow models serve`` behind the proxy: scoring bodies, MLflow's own client, and the V2 protocol translated."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import numpy as np
import polars as pl
import pytest
import tritonclient.http as v2
from mlflow.deployments import get_deploy_client
from requests import HTTPError
from tritonclient.utils import InferenceServerException

from tests.integration.recorded import by_client_id, by_id, recorded
from tests.integration.scoring_servers import mlflow_server, scoring_endpoint
from tests.integration.system import System


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("mlflow")
    with (
        mlflow_server(folder / "server") as url,
        System(folder / "system", [scoring_endpoint("price", url, "mlflow")], wait_for=("proxy",)) as running,
    ):
        yield running


BODIES = [
    {"dataframe_split": {"columns": ["size", "rooms"], "data": [[3, 1], [0.5, 2]]}},
    {"dataframe_records": [{"size": 3, "rooms": 1}, {"size": 0.5, "rooms": 2}]},
    {"instances": [{"size": 3, "rooms": 1}, {"size": 0.5, "rooms": 2}]},
    {"inputs": {"size": [3, 0.5], "rooms": [1, 2]}},
    {"inputs": {"size": [3, 0.5], "rooms": [1, 2]}, "params": {}},
]


@pytest.mark.parametrize("body", BODIES)
def test_scoring_bodies_pass_unchanged(system: System, body: object) -> None:
    sent = json.dumps(body, indent=1)
    answer = httpx.post(
        f"{system.proxy_url}/serving-endpoints/price/invocations",
        content=sent,
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["predictions"] == pytest.approx([7.0, 3.0])
    record = recorded(system, "price", by_id(answer.headers["x-request-id"]))
    assert record["request"] == sent
    assert record["response"] == answer.text
    assert (record["api"], record["served_entity"], record["status_code"]) == ("invocations", "only", 200)
    assert [attempt["status"] for attempt in record["attempt_details"]] == [200]


def test_an_entity_can_be_named_in_the_path(system: System) -> None:
    url = f"{system.proxy_url}/serving-endpoints/price/served-models/only/invocations"
    assert httpx.post(url, json=BODIES[0]).json()["predictions"] == pytest.approx([7.0, 3.0])


def test_the_backends_own_errors_pass(system: System) -> None:
    url = f"{system.proxy_url}/serving-endpoints/price/invocations"
    answer = httpx.post(url, json={"dataframe_records": [{"weight": 3}]})
    assert answer.status_code == 400
    assert "Model is missing inputs" in answer.json()["message"]
    record = recorded(system, "price", by_id(answer.headers["x-request-id"]))
    assert (record["status_code"], record["error_type"]) == (400, "upstream_status")
    assert record["response"] == answer.text


@pytest.mark.parametrize("number", [11, 12])
def test_mlflows_deployments_client(system: System, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", system.proxy_url)
    monkeypatch.setenv("DATABRICKS_TOKEN", "unused")
    client = get_deploy_client("databricks")
    inputs = {"dataframe_split": {"columns": ["size", "rooms"], "data": [[number, 0]]}}
    assert client.predict(endpoint="price", inputs=inputs)["predictions"] == pytest.approx([2 * number])
    record = recorded(system, "price", pl.col("request").str.contains(f"[[{number}, 0]]", literal=True))
    assert record["status_code"] == 200
    with pytest.raises(HTTPError, match="There is no endpoint named 'prices'"):
        client.predict(endpoint="prices", inputs=inputs)


@pytest.mark.parametrize("binary", [False, True])
def test_a_client_of_the_v2_protocol_is_translated(system: System, binary: bool) -> None:
    columns = {"size": np.array([[3.0], [0.5]]), "rooms": np.array([[1.0], [2.0]])}
    inputs = []
    for name, values in columns.items():
        inputs.append(v2.InferInput(name, [2, 1], "FP64").set_data_from_numpy(values, binary_data=binary))
    ident = f"translated-{binary}"
    with v2.InferenceServerClient(system.proxy_url.removeprefix("http://")) as client:
        assert client.is_model_ready("price")
        assert client.get_model_metadata("price")["platform"] == "mlflow"
        answer = client.infer(
            "price",
            inputs,
            outputs=[v2.InferRequestedOutput("price", binary_data=binary)],
            headers={"x-client-request-id": ident},
            parameters={"content_type": "pd"},
        )
        assert answer.as_numpy("price").tolist() == pytest.approx([7.0, 3.0])
        with pytest.raises(InferenceServerException, match="compress") as refused:
            client.infer("price", inputs, request_compression_algorithm="gzip")
        assert refused.value.status() == "400"
        with pytest.raises(InferenceServerException, match="Model is missing inputs"):
            client.infer("price", inputs[:1], parameters={"content_type": "pd"})
    record = recorded(system, "price", by_client_id(ident))
    assert record["api"] == "infer"
    request = json.loads(record["request"])
    assert [tensor["data"] for tensor in request["inputs"]] == [[3.0, 0.5], [1.0, 2.0]]
    assert json.loads(record["response"])["outputs"][0]["data"] == pytest.approx([7.0, 3.0])
    assert record["logging_error_codes"] == []
