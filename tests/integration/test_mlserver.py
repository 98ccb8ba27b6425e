"""MLServer behind the proxy, called by the real client of the V2 protocol, and by MLflow's bodies translated."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import tritonclient.http as v2
from tritonclient.utils import InferenceServerException

from tests.integration.recorded import by_client_id, by_id, recorded
from tests.integration.scoring_servers import mlserver, scoring_endpoint
from tests.integration.system import System

FEATURES = np.array([[3.0, 1.0], [0.5, 2.0]])


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("mlserver")
    with mlserver(folder / "server") as url:
        price = scoring_endpoint("price", url, "kserve", model="price-v1")
        gone = scoring_endpoint("gone", "http://127.0.0.1:1", "kserve")
        with System(folder / "system", [price, gone], wait_for=("proxy",)) as running:
            yield running


@pytest.fixture
def client(system: System) -> Iterator[v2.InferenceServerClient]:
    with v2.InferenceServerClient(system.proxy_url.removeprefix("http://")) as running:
        yield running


def features(*, binary: bool = False) -> v2.InferInput:
    return v2.InferInput("features", [2, 2], "FP64").set_data_from_numpy(FEATURES, binary_data=binary)


def test_health_and_metadata(client: v2.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["name"] == "servelens"
    assert {model["name"] for model in client.get_model_repository_index()} == {"price", "gone"}
    assert client.is_model_ready("price")
    assert not client.is_model_ready("gone")
    assert not client.is_model_ready("nope")
    assert client.get_model_metadata("price")["name"] == "price"
    with pytest.raises(InferenceServerException, match="There is no endpoint named 'nope'") as missing:
        client.get_model_metadata("nope")
    assert missing.value.status() == "404"


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize("model_version", ["", "1"])
def test_infer(
    system: System, client: v2.InferenceServerClient, compression: str | None, model_version: str
) -> None:
    ident = f"infer-{compression}-{model_version}"
    answer = client.infer(
        "price",
        [features()],
        model_version=model_version,
        request_id="mine",
        outputs=[v2.InferRequestedOutput("predict", binary_data=False)],
        request_compression_algorithm=compression,
        headers={"x-client-request-id": ident},
    )
    assert answer.as_numpy("predict").flatten().tolist() == pytest.approx([7.0, 3.0])
    assert answer.get_response()["id"] == "mine"
    record = recorded(system, "price", by_client_id(ident))
    assert (record["api"], record["endpoint"], record["served_entity"]) == ("infer", "price", "only")
    assert json.loads(record["request"])["inputs"][0]["data"] == FEATURES.flatten().tolist()
    assert json.loads(record["response"])["outputs"][0]["data"] == pytest.approx([7.0, 3.0])
    assert record["logging_error_codes"] == []


def test_errors_are_exceptions_of_the_client(system: System, client: v2.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="There is no endpoint named 'nope'") as missing:
        client.infer("nope", [features()])
    assert missing.value.status() == "404"
    with pytest.raises(InferenceServerException, match="did not accept a connection") as gone:
        client.infer("gone", [features()])
    assert gone.value.status() == "502"
    with pytest.raises(InferenceServerException, match="only supports 'predict'") as backends:
        client.infer("price", [features()], outputs=[v2.InferRequestedOutput("nonsense", binary_data=False)])
    assert backends.value.status() == "400"


def test_binary_tensors_are_refused_by_mlserver_itself(
    system: System, client: v2.InferenceServerClient
) -> None:
    """MLServer does not speak the extension; the bytes reach it, and what it says reaches the client."""
    with pytest.raises(InferenceServerException) as refused:
        client.infer("price", [features(binary=True)], headers={"x-client-request-id": "binary"})
    assert refused.value.status() == "422"
    record = recorded(system, "price", by_client_id("binary"))
    assert (record["status_code"], record["error_type"]) == (422, "upstream_status")
    assert json.loads(record["request"])["inputs"][0]["data"] == FEATURES.flatten().tolist()


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["size", "rooms"], "data": [[3, 1], [0.5, 2]]}},
        {"dataframe_records": [{"size": 3, "rooms": 1}, {"size": 0.5, "rooms": 2}]},
        {"inputs": [[3, 1], [0.5, 2]]},
        {"instances": [[3.0, 1], [0.5, 2]]},
    ],
)
def test_mlflow_bodies_are_translated(system: System, body: object) -> None:
    url = f"{system.proxy_url}/serving-endpoints/price/invocations"
    answer = httpx.post(url, json=body)
    assert answer.status_code == 200, answer.text
    assert np.array(answer.json()["predictions"]).flatten().tolist() == pytest.approx([7.0, 3.0])
    record = recorded(system, "price", by_id(answer.headers["x-request-id"]))
    assert record["api"] == "invocations"
    assert json.loads(record["request"]) == body
    assert record["response"] == answer.text


def test_what_cannot_be_translated_is_named(system: System) -> None:
    url = f"{system.proxy_url}/serving-endpoints/price/invocations"
    answer = httpx.post(url, json={"inputs": [[3, 1], [2]]})
    assert answer.status_code == 400
    assert answer.json()["error_code"] == "INVALID_PARAMETER_VALUE"
    assert answer.json()["message"].startswith("inputs: ")
