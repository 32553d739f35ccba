"""Deployments as processes: how they come up, answer, are given up, end and come up again.

The processes run `stub_inference`, which speaks the container's protocol and has no model.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests
from azureml_emulator.emulator import Emulator
from azureml_emulator.scorers.process import ProcessScorer
from azureml_emulator.server import Server
from azureml_emulator.settings import Settings

from tests.conftest import RunningEmulator
from tests.emulator.conftest import CATALOG, Wire

HERE = Path(__file__).parent
ENDPOINT = "onlineEndpoints/chat-1"
DEMO = f"{ENDPOINT}/deployments/demo"
NAMES = ("tiny", "other", "waits", "fails", "killed", "hangs")
MODEL = '  - {name: tiny, version: "1", type: mlflow_model, tags: {}, properties: {},'
AT_ONCE = {"initialDelay": "PT0S", "period": "PT0.3S", "failureThreshold": 1}


class Serving:
    """One endpoint ``chat-1``, whose deployment ``demo`` is a process of the stub."""

    def __init__(self, emulator: RunningEmulator) -> None:
        self.emulator = emulator
        self.wire = Wire(emulator)
        self.folder = emulator.server.emulator.settings.deployments / "chat-1.demo"

    def endpoint(self) -> None:
        """Make the endpoint."""
        body = {"location": "eastus2", "properties": {"authMode": "Key", "properties": {}}}
        assert 201 == self.wire("PUT", ENDPOINT, body).status_code

    def deploy(self, model: str = "tiny", *, capacity: int = 1, **properties: Any) -> str:
        """Begin to deploy *model*; return where its operation is polled."""
        body = {
            "location": "eastus2",
            "sku": {"capacity": capacity},
            "properties": {
                "endpointComputeType": "Managed",
                "instanceType": "Standard_DS3_v2",
                "model": f"azureml://registries/azureml/models/{model}/versions/1",
                **properties,
            },
        }
        answer = self.wire("PUT", DEMO, body)
        assert 201 == answer.status_code, answer.text
        return answer.headers["Azure-AsyncOperation"]

    def ended(self, operation: str) -> dict[str, Any]:
        """Wait until an operation has ended, and return it."""
        return until(lambda: self.poll(operation), lambda found: found["status"] != "InProgress")

    def poll(self, operation: str) -> dict[str, Any]:
        """Return an operation as it is."""
        found: dict[str, Any] = self.wire("GET", operation).json()
        return found

    def state(self) -> str:
        """Return the deployment's provisioning state."""
        return str(self.wire("GET", DEMO).json()["properties"]["provisioningState"])

    def ask(self, message: str = "echo") -> requests.Response:
        """Send a request to the deployment."""
        key = self.wire("POST", f"{ENDPOINT}/listKeys").json()["primaryKey"]
        headers = {"Authorization": f"Bearer {key}", "azureml-model-deployment": "demo"}
        body = {"input_data": {"input_string": [{"role": "user", "content": message}]}}
        return self.wire("POST", "/score/chat-1/score", body, headers=headers)

    def log(self) -> str:
        """Return what ``get_logs`` shows."""
        return str(self.wire("POST", f"{DEMO}/getLogs", {}).json()["content"])

    def pids(self) -> list[int]:
        """Return the processes that the log names, oldest first."""
        lines = self.log().splitlines()
        return [int(line.split()[1]) for line in lines if line.startswith("process ")]

    def go(self, name: str = "go") -> None:
        """Let what waits for the file *name* go on."""
        until(lambda: list(self.folder.glob("*")), bool)
        place = self.folder if name != "go" else max(self.folder.iterdir())
        (place / name).touch()


def until(look: Callable[[], Any], wanted: Callable[[Any], bool], *, seconds: float = 30) -> Any:
    """Return what *look* finds once it is as *wanted*."""
    end = time.monotonic() + seconds
    while not wanted(found := look()):
        assert time.monotonic() < end, found
        time.sleep(0.02)
    return found


def alive(*pids: int) -> list[int]:
    """Return which processes run; one that is dead and not yet buried does not."""
    command = ["ps", "-o", "pid=,stat=", "-p", ",".join(map(str, pids))]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, state in rows if not state.startswith("Z")]


@pytest.fixture(autouse=True)
def stub_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container finds the stub, and the emulator, where the emulator's Python would."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), *sys.path]))


@contextmanager
def running(folder: Path) -> Iterator[Serving]:
    """Run an emulator on *folder* whose deployments are processes of the stub."""
    file = folder / "catalog.yaml"
    rest = CATALOG.split(MODEL)[1].split("\n", 1)[1].split("components")[0]
    models = "".join(f"{MODEL.replace('tiny', name)}\n{rest}" for name in NAMES)
    file.write_text(f"{CATALOG.split(MODEL)[0]}{models}components: []\n")
    settings = Settings(folder / "state", jobs="scripted", catalog=str(file))
    emulator = Emulator(settings)
    emulator.scorer = ProcessScorer(settings.deployments, folder / "cache", module="stub_inference")
    with Server(emulator) as server:
        yield Serving(RunningEmulator(server))


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    """An endpoint for processes of the stub."""
    with running(tmp_path) as found:
        found.endpoint()
        yield found


def test_a_deployment_is_created_when_its_container_is_ready(serving: Serving) -> None:
    """Its operation is in progress until then, and nobody waits for it with the store in hand."""
    operation = serving.deploy("waits")
    during = (serving.poll(operation)["status"], serving.state(), serving.ask().status_code)
    serving.go()
    ended, answer = serving.ended(operation), serving.ask()

    assert ("InProgress", "Creating", 503) == during
    assert ("Succeeded", "Succeeded") == (ended["status"], serving.state())
    assert (200, "waits") == (answer.status_code, answer.json()["output"])
    assert "asked to echo" in serving.log()


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("fails", "crashed or terminated: fails:1 is no MLflow model {at all} (exit code 1)"),
        ("killed", "crashed or terminated: it was killed by signal 9, most often for want of mem"),
        ("hangs", "was not ready after 0.3 seconds, as long as its probes wait"),
    ],
)
def test_a_container_that_does_not_come_up_fails_its_deployment(
    serving: Serving, model: str, said: str
) -> None:
    """With its last words; it is billed, its log can be read, and nothing of it runs."""
    probe = AT_ONCE if model == "hangs" else {}
    operation = serving.deploy(model, livenessProbe=probe, readinessProbe=probe)
    error = serving.ended(operation)["error"]
    pids = serving.pids()

    assert "ResourceNotReady" == error["code"]
    assert said in error["message"]
    assert ("Failed", 503) == (serving.state(), serving.ask().status_code)
    assert [] == alive(*pids)
    assert 2 == len(serving.emulator.open_meters())
    assert 202 == serving.wire("DELETE", DEMO).status_code
    assert not until(serving.folder.exists, lambda there: not there)


def test_a_reply_that_takes_too_long_is_a_408(serving: Serving) -> None:
    """In text, as Azure's proxy says it; waiting for one's turn counts; others are served."""
    serving.ended(serving.deploy(requestSettings={"requestTimeout": "PT0.4S"}))
    began = time.monotonic()
    answer = serving.ask("wait never")
    took = time.monotonic() - began

    assert (408, "upstream request timeout") == (answer.status_code, answer.text)
    assert 0.4 <= took < 5
    assert 200 == serving.ask().status_code


def test_more_requests_than_a_deployment_takes_are_refused(serving: Serving) -> None:
    """Twice what it works on at once may be in hand; the next is a 429, the others get replies."""
    serving.ended(serving.deploy(requestSettings={"requestTimeout": "PT60S"}))
    answers: list[requests.Response] = []
    asking = [
        threading.Thread(target=lambda: answers.append(serving.ask("wait all"))) for _ in range(3)
    ]
    for thread in asking:
        thread.start()
    (refused,) = until(lambda: list(answers), bool)
    # Other requests are answered while these wait: nobody holds the store.
    other = serving.wire("GET", ENDPOINT).status_code
    serving.go("all")
    for thread in asking:
        thread.join()

    assert (429, 200) == (refused.status_code, other)
    assert "2 at a time" in refused.json()["error"]["message"]
    assert [200, 200] == [answer.status_code for answer in answers[1:]]


def test_what_the_model_answers_other_than_200_is_a_model_error(serving: Serving) -> None:
    """424 to the caller, with the model's own status in a header."""
    serving.ended(serving.deploy())
    answer = serving.ask("answer 500")

    assert 424 == answer.status_code
    assert "500" == answer.headers["ms-azureml-model-error-statuscode"]


def test_a_container_that_ends_is_started_again(serving: Serving) -> None:
    """The request gets a 502, those after it 503 until it is up; the log goes on."""
    serving.ended(serving.deploy())
    died = serving.ask("die")
    down = until(serving.ask, lambda answer: answer.status_code == 503)
    up = until(serving.ask, lambda answer: answer.status_code == 200)
    pids = serving.pids()

    assert (502, 503, 200) == (died.status_code, down.status_code, up.status_code)
    assert "has ended (asked to die (exit code 7)) and is started again" in serving.log()
    assert 2 == len(pids)
    assert pids[1:] == alive(*pids)
    assert "Succeeded" == serving.state()


def test_an_update_replaces_the_container_when_the_new_one_is_ready(serving: Serving) -> None:
    """The old one answers until then, and ends when it has nothing in hand any more.

    Tags and more instances change without a new one.
    """
    patient = {"requestTimeout": "PT60S"}
    serving.ended(serving.deploy("tiny", requestSettings=patient))
    old = serving.ask().json()
    serving.ended(serving.deploy("tiny", capacity=2, requestSettings=patient))
    same = serving.ask().json()
    operation = serving.deploy("waits", capacity=2, requestSettings=patient)
    during = serving.ask().json()
    late: list[requests.Response] = []
    asking = threading.Thread(target=lambda: late.append(serving.ask("wait late")))
    asking.start()
    until((serving.folder / "1" / "log").read_text, lambda log: "to wait" in log)
    serving.go()
    serving.ended(operation)
    new = serving.ask().json()
    serving.go("late")
    asking.join()

    assert [old, old, "waits"] == [same, during, new["output"]]
    assert [(200, old)] == [(answer.status_code, answer.json()) for answer in late]
    assert [new["pid"]] == until(lambda: alive(old["pid"], new["pid"]), lambda pids: len(pids) == 1)


def test_an_update_that_fails_leaves_the_old_container(serving: Serving) -> None:
    """The deployment is Failed and answers on, as Azure's rolling update has it."""
    serving.ended(serving.deploy("tiny"))
    old = serving.ask().json()
    ended = serving.ended(serving.deploy("fails"))

    assert ("Failed", "Failed") == (ended["status"], serving.state())
    assert old == serving.ask().json()
    assert "no MLflow model" in serving.log()


def test_containers_come_up_again_with_the_emulator(tmp_path: Path) -> None:
    """What answered answers, what was coming up comes up; of the old processes none is left."""
    with running(tmp_path) as serving:
        serving.endpoint()
        serving.ended(serving.deploy())
        old = serving.ask().json()["pid"]
        serving.wire("PATCH", DEMO, {"tags": {"a": "1"}})
    assert [] == alive(old)
    with running(tmp_path) as serving:
        answer = until(serving.ask, lambda found: found.status_code == 200)
        operation = serving.deploy("waits")
    with running(tmp_path) as serving:
        # The address has the port of its emulator.
        operation = serving.emulator.url + operation[operation.index("/subscriptions") :]
        between = serving.poll(operation)["status"]
        serving.go()
        ended = serving.ended(operation)["status"]

        assert [answer.json()["pid"]] != [old]
        assert ("InProgress", "Succeeded") == (between, ended)
        assert "waits" == serving.ask().json()["output"]


def test_nothing_is_left_of_a_deployment_that_is_deleted(serving: Serving) -> None:
    """No process and no file, whether it goes by itself or with its endpoint."""
    for path in (DEMO, ENDPOINT):
        serving.ended(serving.deploy())
        pids = serving.pids()
        serving.wire("DELETE", path)

        assert not until(serving.folder.exists, lambda there: not there)
        assert [] == alive(*pids)


def test_an_emulator_stops_while_a_reply_is_awaited(tmp_path: Path) -> None:
    """At once, whatever the request may still take; no process is left."""
    with running(tmp_path) as serving:
        serving.endpoint()
        serving.ended(serving.deploy(requestSettings={"requestTimeout": "PT180S"}))
        pids = serving.pids()

        def ask() -> None:
            with pytest.raises(requests.RequestException):
                serving.ask("wait never").raise_for_status()

        asking = threading.Thread(target=ask)
        asking.start()
        until(serving.log, lambda log: "asked to wait" in log)
        began = time.monotonic()
    took = time.monotonic() - began
    asking.join()

    assert took < 5
    assert [] == alive(*pids)
