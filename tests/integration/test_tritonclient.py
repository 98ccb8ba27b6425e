"""The real ``tritonclient`` and NVIDIA's own Triton, with the proxy between them: tensors as raw bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as v2
from tritonclient.utils import InferenceServerException

from tests.integration.recorded import by_client_id, recorded
from tests.integration.scoring_servers import scoring_endpoint, triton
from tests.integration.system import System

FEATURES = np.array([[3.0, 1.0], [0.5, 2.0]])
MANY = 40_000


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("triton")
    with triton(folder / "server") as url:
        endpoint = scoring_endpoint("house", url, "kserve", model="price")
        with System(folder / "system", [endpoint], wait_for=("proxy",)) as running:
            yield running


@pytest.fixture
def client(system: System) -> Iterator[v2.InferenceServerClient]:
    with v2.InferenceServerClient(system.proxy_url.removeprefix("http://")) as running:
        yield running


def features(values: np.ndarray, *, binary: bool = True) -> v2.InferInput:
    return v2.InferInput("features", list(values.shape), "FP64").set_data_from_numpy(
        values, binary_data=binary
    )


def test_health_metadata_and_configuration(client: v2.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("house")
    assert client.is_model_ready("house", "1")
    assert not client.is_model_ready("house", "7")
    metadata = client.get_model_metadata("house")
    assert (metadata["name"], metadata["platform"]) == ("house", "python")
    assert metadata["inputs"] == [{"name": "features", "datatype": "FP64", "shape": [-1, 2]}]
    assert client.get_model_config("house")["name"] == "house"
    assert client.get_inference_statistics("house")["model_stats"][0]["name"] == "house"
    with pytest.raises(
        InferenceServerException, match="There is nothing at POST /v2/repository/models/house/load"
    ):
        client.load_model("house")


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_answer", [False, True])
@pytest.mark.parametrize("binary", [False, True])
def test_infer(
    system: System,
    client: v2.InferenceServerClient,
    binary: bool,
    binary_answer: bool,
    compression: str | None,
) -> None:
    ident = f"{binary}-{binary_answer}-{compression}"
    answer = client.infer(
        "house",
        [features(FEATURES, binary=binary)],
        outputs=[v2.InferRequestedOutput("price", binary_data=binary_answer)],
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
        headers={"x-client-request-id": ident},
    )
    assert answer.as_numpy("price").tolist() == [7.0, 3.0]
    record = recorded(system, "house", by_client_id(ident))
    assert json.loads(record["request"])["inputs"][0]["data"] == FEATURES.flatten().tolist()
    assert json.loads(record["response"])["outputs"][0]["data"] == [7.0, 3.0]
    assert (record["logging_error_codes"], record["error_type"]) == ([], None)


def test_tensors_too_large_for_the_table_leave_their_description(
    system: System, client: v2.InferenceServerClient
) -> None:
    values = np.arange(2.0 * MANY).reshape(MANY, 2)
    answer = client.infer("house", [features(values)], headers={"x-client-request-id": "large"})
    assert np.array_equal(answer.as_numpy("price"), values @ [2.0, 1.0])
    record = recorded(system, "house", by_client_id("large"))
    (tensor,) = json.loads(record["request"])["inputs"]
    assert (tensor["shape"], tensor["parameters"]) == ([MANY, 2], {"binary_data_size": 16 * MANY})
    assert json.loads(record["response"])["outputs"][0]["shape"] == [MANY]
    assert record["logging_error_codes"] == ["BINARY_TENSORS_OMITTED"]


def test_a_body_over_the_records_limit_leaves_its_description(
    system: System, client: v2.InferenceServerClient
) -> None:
    values = np.zeros((100_000, 2))
    client.infer("house", [features(values)], headers={"x-client-request-id": "huge"})
    record = recorded(system, "house", by_client_id("huge"))
    assert json.loads(record["request"])["inputs"][0]["shape"] == [100_000, 2]
    assert "BINARY_TENSORS_OMITTED" in record["logging_error_codes"]


def test_errors_are_exceptions_of_the_client(client: v2.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="There is no endpoint named 'price'") as missing:
        client.infer("price", [features(FEATURES)])
    assert missing.value.status() == "404"
    with pytest.raises(InferenceServerException, match="unexpected shape for input 'features'") as backends:
        client.infer("house", [features(np.zeros((1, 3)))])
    assert backends.value.status() == "400"


def test_many_calls_at_once(client: v2.InferenceServerClient, system: System) -> None:
    address = system.proxy_url.removeprefix("http://")
    with v2.InferenceServerClient(address, concurrency=8) as parallel:
        pending = [
            parallel.async_infer("house", [features(np.array([[float(number), 0.5]]))])
            for number in range(64)
        ]
        got = [request.get_result().as_numpy("price").tolist() for request in pending]
    assert got == [[2.0 * number + 0.5] for number in range(64)]
