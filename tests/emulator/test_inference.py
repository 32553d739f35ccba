"""The container of a deployment: what it is asked, what it answers, and a real model behind it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator.services import artifacts
from starlette.testclient import TestClient

from tests.conftest import RunningEmulator
from tests.emulator.conftest import TrainedModel, Wire
from tests.emulator.test_packaging import SAMPLED, demo
from tests.emulator.test_process_scorer import until

CODE = '''
import numpy as np
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Doubles(PythonModel):
    """Twice each row's number; a negative one is too much for it."""

    def predict(self, context, model_input, params=None):
        if (model_input["x"] < 0).any():
            raise RuntimeError("too little")
        return np.asarray(model_input["x"]) * params["times"]

set_model(Doubles())
'''


@pytest.fixture(scope="module")
def doubling(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    """The container's server around a small model of somebody else's."""
    import mlflow
    from azureml_emulator.inference.server import app
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    folder = tmp_path_factory.mktemp("doubling")
    (folder / "doubles.py").write_text(CODE)
    signature = ModelSignature(
        inputs=Schema([ColSpec("long", "x")]), params=ParamSchema([ParamSpec("times", "long", 2)])
    )
    mlflow.pyfunc.save_model(
        folder / "model",
        python_model=str(folder / "doubles.py"),
        signature=signature,
        pip_requirements=[],
    )
    model = mlflow.pyfunc.load_model(str(folder / "model"))
    return TestClient(app(model), raise_server_exceptions=False)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"input_data": {"columns": ["x"], "data": [[1], [2]]}}, [2, 4]),
        ({"input_data": {"x": [1, 2]}, "params": {"times": 3}}, [3, 6]),
        ({"input_data": {"x": 5, "parameters": {"times": 3}}, "params": {}}, [15]),
    ],
)
def test_any_pyfunc_model_is_served(doubling: TestClient, body: Any, said: Any) -> None:
    """In Azure's table format, by columns, and with the parameters of its signature."""
    answer = doubling.post("/score", json=body)

    assert (200, said) == (answer.status_code, answer.json())


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "the request is not JSON"),
        (b"[]", "no object input_data"),
        (b'{"inputs": 1}', "no object input_data"),
        (b'{"input_data": {}}', "no rows"),
        (b'{"input_data": {"x": []}}', "no rows"),
        (b'{"input_data": {"y": [1]}}', "the model has no input y; it has x"),
        (b'{"input_data": {"x": [1]}, "params": 1}', "params is not an object"),
        (b'{"input_data": {"x": [1], "parameters": 1}}', "input_data.parameters is not an object"),
        (b'{"input_data": {"x": [1]}, "params": {"time": 1}}', "no parameter time; it has times"),
        (b'{"input_data": {"columns": ["x"], "data": [[1, 2]]}}', "input_data is no table"),
        (b'{"input_data": {"x": ["one"]}}', "x"),
        (b'{"input_data": {"x": [1]}, "params": {"times": "two"}}', "times"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    doubling: TestClient, body: bytes, said: str
) -> None:
    """400 in a sentence that names what is wrong."""
    answer = doubling.post("/score", content=body)

    assert 400 == answer.status_code, answer.text
    assert said in answer.json()["error"]["message"]


def test_a_model_that_fails_answers_500_and_logs_why(
    doubling: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    """The next request is answered; what was asked is not in the log."""
    with caplog.at_level(logging.INFO, "azmlinfsrv"):
        failed = doubling.post("/score", json={"input_data": {"x": [-987654]}})
        fine = doubling.post("/score", json={"input_data": {"x": [987654]}})

    assert (500, 200) == (failed.status_code, fine.status_code)
    assert "RuntimeError: too little" in failed.json()["error"]["message"]
    assert "Traceback" in caplog.text
    assert "987654" not in caplog.text.replace("model_input", "")


def test_it_is_alive_once_it_listens(doubling: TestClient) -> None:
    """As the probes of azureml-inference-server-http ask."""
    assert "Healthy" == doubling.get("/").text


@pytest.fixture
def training(
    start_emulator: Any, catalog: str, trained_model: TrainedModel
) -> tuple[RunningEmulator, Wire]:
    """An emulator with real containers, and the trained model registered as ``mine:1``."""
    emulator: RunningEmulator = start_emulator(jobs="train", catalog=catalog)
    wire = Wire(emulator)
    place = "azureml://datastores/workspaceblobstore/paths/mine"
    for path in trained_model.mlflow.rglob("*"):
        if path.is_file():
            name = path.relative_to(trained_model.mlflow).as_posix()
            artifacts.write(emulator.server.emulator, place, name, path.read_bytes())
    properties = {"modelUri": place, "modelType": "mlflow_model"}
    assert 201 == wire("PUT", "models/mine/versions/1", {"properties": properties}).status_code
    return emulator, wire


def test_a_real_model_answers_before_and_after_training(
    training: tuple[RunningEmulator, Wire],
) -> None:
    """Both on one endpoint, asked by deployment name: the base knows nothing, the tuned one all."""
    emulator, wire = training
    body: dict[str, Any] = {"location": "eastus2", "properties": {"authMode": "Key"}}
    wire("PUT", "onlineEndpoints/chat-1", body)
    models = {
        "before": "azureml://registries/azureml/models/tiny/versions/1",
        "after": f"azureml:{emulator.server.emulator.store.list('model')[0]['id']}",
    }
    operations = []
    for name, model in models.items():
        properties = {
            "endpointComputeType": "Managed",
            "instanceType": "Standard_DS3_v2",
            "model": model,
            "requestSettings": {"requestTimeout": "PT180S"},
        }
        wanted = {"location": "eastus2", "sku": {"capacity": 1}, "properties": properties}
        answer = wire("PUT", f"onlineEndpoints/chat-1/deployments/{name}", wanted)
        operations.append(answer.headers["Azure-AsyncOperation"])
    for operation in operations:
        ended = until(
            lambda at=operation: wire("GET", at).json(),  # type: ignore[misc]
            lambda found: found["status"] != "InProgress",
            seconds=180,
        )
        assert "Succeeded" == ended["status"], ended
    key = wire("POST", "onlineEndpoints/chat-1/listKeys").json()["primaryKey"]

    def ask(deployment: str, conversations: Any, **parameters: Any) -> Any:
        data = {"input_string": conversations, "parameters": parameters}
        return wire(
            "POST",
            "/score/chat-1/score",
            {"input_data": data, "params": {}},
            headers={"Authorization": f"Bearer {key}", "azureml-model-deployment": deployment},
        )

    held_out = demo("test_gen", 10)
    questions = [messages for messages, _ in held_out]
    right = {}
    for name in models:
        said = [row["output"] for row in ask(name, questions, **SAMPLED).json()]
        right[name] = sum(a == b for a, (_, b) in zip(said, held_out, strict=True))
    one = ask("after", questions[0], max_new_tokens=30)
    refused = ask("after", questions[0], temprature=1)
    untidy = ask("after", [{"role": "user", "contents": "nobody's business"}])
    logs = wire("POST", "onlineEndpoints/chat-1/deployments/after/getLogs", {}).json()["content"]
    of_base = wire("POST", "onlineEndpoints/chat-1/deployments/before/getLogs", {}).json()

    assert right["before"] <= 1
    assert right["after"] >= 8
    assert {"output": held_out[0][1]} == one.json()
    assert "400" == refused.headers["ms-azureml-model-error-statuscode"]
    assert "the model has no parameter temprature" in json.dumps(refused.json())
    assert "Missing required properties: {'content'}" in json.dumps(untidy.json())
    assert "nobody's business" not in logs
    assert "POST /score 200" in logs
    assert "rows: 10" in logs
    assert "a stand-in takes its place" in of_base["content"]
    assert questions[0][0]["content"] not in logs


def test_what_is_no_mlflow_model_fails_in_a_sentence(tmp_path: Path) -> None:
    """Also a model whose files are gone; the last line of the log is the reason."""
    from azureml_emulator.inference.loading import LoadError, load
    from azureml_emulator.inference.request import Request

    def request(folder: Path | None) -> Request:
        port, packaged = tmp_path / "port", tmp_path / "packaged"
        return Request("azureml:mine:1", "mine", "1", None, folder, tmp_path, port, packaged)

    with pytest.raises(LoadError, match="mine:1 is no MLflow model"):
        load(request(tmp_path))
    with pytest.raises(LoadError, match="nothing where the model azureml:mine:1 was"):
        load(request(None))
