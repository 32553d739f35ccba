"""Weights become an MLflow model: a folder that plain ``mlflow.pyfunc.load_model`` answers from.

::

    MLmodel                  flavor python_function, signature, metadata
    chat_model.py            how to load and to answer: "models from code", nothing is pickled
    artifacts/weights/       the Hugging Face folder, with licence and notice
    input_example.json       a request, for people and tools
    requirements.txt, conda.yaml, python_env.yaml

Nothing in it names the machine that made it. The weights are linked, not copied.
"""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from .training.model_import import link_files
from .training.resources import parameter_count

WEIGHTS = "artifacts/weights"
"""Where in the model the Hugging Face folder is."""

CODE = Path(__file__).parent / "inference" / "chat_model.py"

DEFAULTS: dict[str, Any] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "do_sample": False,
    "max_new_tokens": 200,
}
"""What a request that does not say otherwise is answered with."""

_PACKAGES = ("mlflow-skinny", "pandas", "torch", "transformers")
_SUMS = "SHA256SUMS"
_EXAMPLE = [{"role": "user", "content": "Where is the nearest library?"}]


def package(weights_folder: Path, target: Path, *, base_model: str, job: str | None = None) -> None:
    """Make an MLflow model of the Hugging Face folder *weights_folder*.

    Args:
        weights_folder: Weights, tokenizer with a chat template, configuration.
        target: An empty folder, which becomes the model.
        base_model: The id of the model that was fine-tuned, or of the model itself.
        job: The job that fine-tuned it; None for a model as it was.

    Raises:
        OSError: *target* cannot be written.
    """
    # Here: it takes two seconds to import.
    from mlflow import pyfunc
    from mlflow.models import Model

    weights = target / WEIGHTS
    weights.mkdir(parents=True)
    link_files(weights_folder, weights, leave=(_SUMS,))
    (target / CODE.name).write_bytes(CODE.read_bytes())
    _write_environment(target)
    example = {
        "inputs": {"columns": ["input_string"], "data": [[_EXAMPLE]]},
        "params": DEFAULTS,
    }
    (target / "input_example.json").write_text(json.dumps(example, indent=2), encoding="utf-8")
    model = Model(
        signature=_signature(),
        metadata=_metadata(weights, base_model, job),
        saved_input_example_info={
            "artifact_path": "input_example.json",
            "type": "dataframe",
            "pandas_orient": "split",
            "params": "true",
        },
        model_size_bytes=sum(path.stat().st_size for path in weights.iterdir()),
    )
    pyfunc.add_to_model(
        model,
        loader_module="mlflow.pyfunc.loaders.code_model",
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_code_path=CODE.name,
        # With the key `uri`, which load_model wants and takes no notice of.
        artifacts={"weights": {"path": WEIGHTS, "uri": WEIGHTS}},
        streamable=False,
    )
    model.save(str(target / "MLmodel"))


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import (
        Array,
        ColSpec,
        DataType,
        Object,
        ParamSchema,
        ParamSpec,
        Property,
        Schema,
    )

    text = DataType.string
    message = Object([Property("role", text), Property("content", text)])
    kinds = {float: DataType.double, bool: DataType.boolean, int: DataType.long}
    return ModelSignature(
        inputs=Schema([ColSpec(Array(message), "input_string")]),
        outputs=Schema([ColSpec(text, "output")]),
        params=ParamSchema(
            [ParamSpec(name, kinds[type(value)], value) for name, value in DEFAULTS.items()]
        ),
    )


def _metadata(weights: Path, base_model: str, job: str | None) -> dict[str, Any]:
    config = json.loads((weights / "config.json").read_text(encoding="utf-8"))
    metadata: dict[str, Any] = {
        "task": "chat-completion",
        "base_model": base_model,
        "architecture": (config.get("architectures") or ["unknown"])[0],
        "parameters": parameter_count(weights),
        "made_by": f"azureml-emulator {version('azureml-emulator')}",
    }
    if job is not None:
        metadata["job"] = job
    if (notice := weights / "NOTICE").is_file():
        metadata["notice"] = notice.read_text(encoding="utf-8")
    return metadata


def _write_environment(target: Path) -> None:
    # Without what follows a +, which names a build that no index has.
    needed = [f"{name}=={version(name).partition('+')[0]}" for name in _PACKAGES]
    (target / "requirements.txt").write_text("\n".join(needed) + "\n", encoding="utf-8")
    python = platform.python_version()
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": needed}],
    }
    environment = {"python": python, "dependencies": ["-r requirements.txt"]}
    for name, content in (("conda.yaml", conda), ("python_env.yaml", environment)):
        (target / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
