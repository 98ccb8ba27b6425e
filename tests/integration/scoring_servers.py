"""Real servers of scoring models, each in a process group of its own, started from ``.venv-backends``.

All serve the same scikit-learn model: a price of ``2 × size + rooms``. They start without a network, listen on the
loopback interface, and are gone when the block ends. The programs are not part of the project's own environment; a
test is skipped where they are missing (see tests/conftest.py).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ctypes.util import find_library
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from tests.integration.system import free_port

START_LIMIT_S: Final = 120.0
_ENVIRONMENT: Final = Path(__file__).parents[2] / ".venv-backends"

_MAKE_MODEL: Final = """
import sys, joblib, pandas
from sklearn.linear_model import LinearRegression
folder, with_mlflow = sys.argv[1], sys.argv[2] == "mlflow"
features = pandas.DataFrame({"size": [1.0, 2.0, 3.0, 4.0], "rooms": [1.0, 0.0, 1.0, 0.0]})
model = LinearRegression().fit(features, 2 * features["size"] + features["rooms"])
if with_mlflow:
    import mlflow.sklearn
    from mlflow.models import infer_signature
    signature = infer_signature(features, model.predict(features))
    mlflow.sklearn.save_model(model, folder + "/price", signature=signature, pip_requirements=[])
else:
    joblib.dump(model, folder + "/model.joblib")
"""

_TRITON_CONFIG: Final = """
name: "price"
backend: "python"
input [ { name: "features" data_type: TYPE_FP64 dims: [ -1, 2 ] } ]
output [ { name: "price" data_type: TYPE_FP64 dims: [ -1 ] } ]
instance_group [ { kind: KIND_CPU } ]
"""

# By DLPack, because the stub was compiled for an older numpy.
_TRITON_MODEL: Final = """
import sys
sys.path.insert(0, {site!r})
import numpy as np
import triton_python_backend_utils as triton

class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            features = np.from_dlpack(triton.get_input_tensor_by_name(request, "features"))
            price = np.ascontiguousarray(features @ np.array([2.0, 1.0]))
            answers.append(triton.InferenceResponse([triton.Tensor.from_dlpack("price", price)]))
        return answers
"""


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """``mlflow models serve``; gives its address."""
    program = _program("mlflow")
    _make_model(folder, "mlflow")
    port = free_port()
    command = [program, "models", "serve", "--model-uri", folder / "price", "--env-manager", "local"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    with _running(command, folder, f"http://127.0.0.1:{port}", "/ping") as url:
        yield url


@contextmanager
def mlserver(folder: Path) -> Iterator[str]:
    """MLServer with its scikit-learn runtime and one model ``price-v1``; gives its address."""
    program = _program("mlserver")
    _make_model(folder, "joblib")
    port = free_port()
    settings = {
        "host": "127.0.0.1",
        "http_port": port,
        "grpc_port": free_port(),
        "metrics_endpoint": None,
        "parallel_workers": 0,
        "environments_dir": str(folder / "environments"),
    }
    model = {
        "name": "price-v1",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": "1"},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    url = f"http://127.0.0.1:{port}"
    with _running([program, "start", folder], folder, url, "/v2/models/price-v1/ready"):
        yield url


@contextmanager
def triton(folder: Path) -> Iterator[str]:
    """NVIDIA's Triton (from the wheel ``nvidia-pytriton``) with one model ``price`` on its Python backend."""
    site = _site_packages()
    server = site / "pytriton" / "tritonserver"
    if not server.exists():
        pytest.skip("nvidia-pytriton is not installed in .venv-backends")
    version = site.parent.name
    if find_library(version) is None:
        pytest.skip(f"Triton's Python backend needs the system's lib{version}")
    model = folder / "models" / "price"
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(_TRITON_CONFIG)
    (model / "1" / "model.py").write_text(_TRITON_MODEL.format(site=str(site)))
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    parts = ("libtriton_python.so", "triton_python_backend_utils.py")
    for part in (*(server / "backends" / "python" / name for name in parts), _stub(server)):
        (backend / part.name).symlink_to(part)
    port = free_port()
    command = [server / "bin" / "tritonserver", f"--model-repository={folder / 'models'}"]
    command += [f"--backend-directory={backend.parent}", "--http-address=127.0.0.1", f"--http-port={port}"]
    command += ["--allow-grpc=false", "--allow-metrics=false", "--exit-timeout-secs=2"]
    variables = {"LD_LIBRARY_PATH": str(site / "nvidia_pytriton.libs")}
    url = f"http://127.0.0.1:{port}"
    with _running(command, folder, url, "/v2/models/price/ready", variables):
        yield url


def scoring_endpoint(name: str, url: str, api: str, **backend: Any) -> dict[str, Any]:
    """Settings of an endpoint with one served entity ``only`` of that ``api``."""
    entity = {"name": "only", "backend": {"urls": [url], "api": api, **backend}}
    route = {"served_entity_name": "only", "traffic_percentage": 100}
    return {
        "name": name,
        "config": {"served_entities": [entity], "traffic_config": {"routes": [route]}},
    }


def _program(name: str) -> Path:
    program = _ENVIRONMENT / "bin" / name
    if not program.exists():
        pytest.skip(f"{name} is not installed in .venv-backends")
    return program


def _site_packages() -> Path:
    return next(_ENVIRONMENT.glob("lib/python3*/site-packages"), _ENVIRONMENT)


def _stub(server: Path) -> Path:
    version = _site_packages().parent.name.removeprefix("python")
    return server / "python_backend_stubs" / version / "triton_python_backend_stub"


def _make_model(folder: Path, kind: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [_program("python"), "-c", _MAKE_MODEL, folder, kind]
    made = subprocess.run(command, env=_variables(), capture_output=True, text=True, timeout=START_LIMIT_S)
    assert made.returncode == 0, made.stderr[-4000:]


def _variables() -> dict[str, str]:
    own = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **own, "PATH": f"{_ENVIRONMENT / 'bin'}:{os.environ['PATH']}"}


@contextmanager
def _running(
    command: list[Any], folder: Path, url: str, ready: str, variables: Mapping[str, str] | None = None
) -> Iterator[str]:
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=folder,
            env={**_variables(), **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, url + ready, log)
        yield url
    finally:
        _stop(process)


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(log.read_text(errors="replace")[-8000:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The group and not the process: a server's workers must not outlive it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            continue
