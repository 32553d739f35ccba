"""The model folder: plain mlflow answers from it anywhere, without the emulator."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from azureml_emulator.packaging import package
from azureml_emulator.weights import STANDIN

from tests.emulator.conftest import TrainedModel

# Runs where there is neither the emulator nor anything that full mlflow has over mlflow-skinny.
PLAIN = """
import json, sys

BARRED = {"azureml_emulator", "azureml", "azure", "peft", "alembic", "docker", "flask", "graphene",
          "huey", "matplotlib", "pyarrow", "sklearn", "skops", "sqlalchemy", "mlflow.server"}

class Bar:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        return None if name in BARRED else self.finder.find_spec(name, path, target)

sys.meta_path[:] = [Bar(finder) for finder in sys.meta_path]
import mlflow, pandas

model = mlflow.pyfunc.load_model(sys.argv[1])
asked = json.load(open(sys.argv[2]))
said = []
for one in asked:
    try:
        table = pandas.DataFrame({"input_string": one["conversations"]})
        said.append(model.predict(table, params=one["params"])["output"].tolist())
    except mlflow.exceptions.MlflowException as error:
        said.append([error.error_code, error.message])
params = model.metadata.load_input_example_params(sys.argv[1])
example = model.predict(model.input_example, params=params)
print(json.dumps({"said": said, "example": example.columns.tolist()}))
"""
SAMPLED = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "max_new_tokens": 30}


def user(*turns: str) -> list[dict[str, str]]:
    """Return a conversation of questions and answers in turn."""
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": turn} for n, turn in enumerate(turns)]


def demo(split: str, count: int) -> list[tuple[list[dict[str, str]], str]]:
    """Return conversations of the demo up to their first answer, and that answer."""
    with Path(f"demo/ultrachat/{split}.jsonl").open(encoding="utf-8") as rows:
        messages = [json.loads(next(rows))["messages"] for _ in range(count)]
    return [(one[:1], one[1]["content"]) for one in messages]


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in as an MLflow model."""
    target = tmp_path_factory.mktemp("packaged")
    package(STANDIN, target, base_model="azureml://registries/azureml/models/tiny/versions/1")
    return target


def test_plain_mlflow_answers_from_a_trained_model(
    trained_model: TrainedModel, tmp_path: Path
) -> None:
    """Right when sampled too, several at once, and in a sentence where it refuses."""
    held_out = demo("test_gen", 12)
    questions = [messages for messages, _ in held_out]
    question = questions[0]
    asked: list[dict[str, Any]] = [
        {"conversations": questions, "params": SAMPLED},
        {"conversations": [question], "params": {"max_new_tokens": 1}},
        {"conversations": [question], "params": {"temperature": 2.5}},
        {"conversations": [question], "params": {"top_p": 0.0}},
        {"conversations": [question], "params": {"max_new_tokens": 0}},
        {"conversations": [question], "params": {"max_new_tokens": "many"}},
        {"conversations": [user("who " * 5000)], "params": {}},
        {"conversations": [[]], "params": {}},
        {"conversations": [[{"role": "robot", "content": "x"}]], "params": {}},
        {"conversations": [[{"role": "user"}]], "params": {}},
        {"conversations": [question], "params": {"temperature": 0.0, "do_sample": True}},
        {"conversations": [question], "params": {"max_new_tokens": 30}},
    ]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    (tmp_path / "plain.py").write_text(PLAIN)
    done = subprocess.run(
        [sys.executable, "-I", "plain.py", str(trained_model.mlflow), "asked.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    sampled, (short,), *refusals = answer["said"][:-2]
    (greedy,), (by_default,) = answer["said"][-2:]
    right = sum(said == wanted for said, (_, wanted) in zip(sampled, held_out, strict=True))

    assert right >= 10, sampled
    assert len(short) < len(held_out[0][1])
    assert [["INVALID_PARAMETER_VALUE"]] * 8 == [refusal[:1] for refusal in refusals]
    for word, (_, message) in zip(
        ("temperature is 2.5", "top_p is 0", "max_new_tokens is 0", "max_new_tokens", "5", "no mes",
         "'robot'", "content"),
        refusals,
        strict=True,
    ):  # fmt: skip
        assert word in message
    assert "tokens and max_new_tokens is 200: together they may be at most" in refusals[4][1]
    assert (["output"], by_default) == (answer["example"], greedy)


def test_a_model_says_what_it_is(trained_model: TrainedModel, packaged: Path) -> None:
    """Base model, job, architecture and size; what a request may hold; an example of one."""
    trained = yaml.safe_load((trained_model.mlflow / "MLmodel").read_text())
    plain = yaml.safe_load((packaged / "MLmodel").read_text())
    params = {one["name"]: one["default"] for one in json.loads(trained["signature"]["params"])}

    assert {
        "task": "chat-completion",
        "base_model": "azureml://registries/azureml/models/tiny/versions/1",
        "architecture": "Phi3ForCausalLM",
    }.items() <= plain["metadata"].items()
    assert "job" in trained["metadata"]
    assert "job" not in plain["metadata"]
    assert 300_000 < plain["metadata"]["parameters"] < 600_000
    assert {"temperature": 1.0, "top_p": 1.0, "do_sample": False, "max_new_tokens": 200} == params
    assert "python_function" in trained["flavors"]
    assert {"torch", "transformers", "mlflow-skinny", "pandas"} == {
        line.split("==")[0] for line in (packaged / "requirements.txt").read_text().splitlines()
    }


def test_a_notice_goes_with_the_model(tmp_path: Path) -> None:
    """As a file, and in what the model says of itself, so that a licence is kept."""
    weights, target = tmp_path / "weights", tmp_path / "model"
    weights.mkdir()
    target.mkdir()
    for path in STANDIN.iterdir():
        (weights / path.name).write_bytes(path.read_bytes())
    (weights / "NOTICE").write_text("By somebody, Apache-2.0.")
    package(weights, target, base_model="mine")

    assert "By somebody, Apache-2.0." == (target / "artifacts/weights/NOTICE").read_text()
    said = yaml.safe_load((target / "MLmodel").read_text())["metadata"]
    assert "By somebody, Apache-2.0." == said["notice"]


def test_a_model_names_no_machine_and_copies_no_weights(
    trained_model: TrainedModel, packaged: Path, tmp_path: Path
) -> None:
    """It can be moved and given away, and takes no disk of its own for its weights."""
    for model in (packaged, trained_model.mlflow):
        for path in model.iterdir():
            if path.is_file():
                text = path.read_text(encoding="utf-8")
                for place in (Path.cwd(), Path.home(), STANDIN, tmp_path.parent, sys.prefix):
                    assert str(place) not in text, path

    weights = packaged / "artifacts/weights/model.safetensors"
    assert (STANDIN / "model.safetensors").samefile(weights) or weights.stat().st_nlink == 1
