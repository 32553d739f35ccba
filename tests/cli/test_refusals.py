"""Every refusal: exit 2, one message with place, reason and remedy, and nothing created."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from cli.main import main

REFUSALS_PAGE = Path("docs/refusals.md")


class Case(NamedTuple):
    """A mistake, and what is said of it."""

    mistake: str
    settings: tuple[str, ...]
    code: str
    where: str
    without: tuple[str, ...] = ()
    prefect: str | None = None


WORKSPACE = (
    "AZUREML_ARM_SUBSCRIPTION",
    "AZUREML_ARM_RESOURCEGROUP",
    "AZUREML_ARM_WORKSPACE_NAME",
)

# A model that asks for more than the profile's, so that there is more to be refused.
BASE = (
    "model.name=Phi-4-mini-instruct",
    "compute.size=Standard_NC24ads_A100_v4",
    "endpoint.instance_type=Standard_NC24ads_A100_v4",
)

CASES = [
    Case("unknown section", ("modle.name=x",), "ConfigurationError", "modle"),
    Case("unknown key", ("model.nmae=x",), "ConfigurationError", "model.nmae"),
    Case("wrong type", ("compute.nodes=two",), "ConfigurationError", "compute.nodes"),
    Case(
        "out of bounds",
        ("endpoint.request_timeout_seconds=181",),
        "ConfigurationError",
        "endpoint.request_timeout_seconds",
    ),
    Case("percentage 0", ("dataset.percentage=0",), "ConfigurationError", "dataset.percentage"),
    Case("percentage 101", ("dataset.percentage=101",), "ConfigurationError", "dataset.percentage"),
    Case(
        "bad endpoint name",
        ("endpoint.name_prefix=9lives",),
        "ConfigurationError",
        "endpoint.name_prefix",
    ),
    Case(
        "unknown component input",
        ("training.overrides.learning_rat=1e-4",),
        "ComponentInputError",
        "training.overrides.learning_rat",
    ),
    Case(
        "enum out of range",
        ("training.overrides.lr_scheduler_type=cosine2",),
        "ComponentInputError",
        "training.overrides.lr_scheduler_type",
    ),
    Case(
        "below the component's minimum",
        ("training.overrides.num_train_epochs=0",),
        "ComponentInputError",
        "training.overrides.num_train_epochs",
    ),
    Case("missing component", ("training.component=nope",), "ComponentNotFound", "training"),
    Case("missing data set", ("dataset.path=./no-such",), "DatasetError", "dataset.path"),
    Case("missing split", ("dataset.train_split=nope",), "DatasetError", "dataset.train_split"),
    Case("rows of another shape", ("dataset.shape=alpaca",), "DatasetError", "dataset.shape"),
    Case("missing model", ("model.name=Phi-99",), "ModelNotFound", "model.name"),
    Case("missing version", ("model.version=9999",), "ModelNotFound", "model.version"),
    Case("retired model", ("model.name=Phi-3-mini-4k-instruct",), "ModelRetired", "model.name"),
    Case(
        "size that the model does not allow",
        ("compute.size=Standard_NC4as_T4_v3",),
        "SizeNotAllowed",
        "compute.size",
    ),
    Case("size without GPU", ("compute.size=Standard_D12_v2",), "SizeNotAllowed", "compute.size"),
    Case("unknown size", ("compute.size=Standard_NC0",), "SizeUnknown", "compute.size"),
    Case(
        "instance type that the model does not allow",
        ("endpoint.instance_type=Standard_NC4as_T4_v3",),
        "SizeNotAllowed",
        "endpoint.instance_type",
    ),
    Case("no workspace", (), "WorkspaceNotConfigured", "", without=WORKSPACE),
    Case("half a workspace", (), "WorkspaceNotConfigured", "", without=WORKSPACE[:1]),
    Case(
        "workspace that is not there",
        (
            "workspace.subscription_id=00000000-0000-4000-8000-000000000001",
            "workspace.resource_group=emulator",
            "workspace.name=elsewhere",
        ),
        "WorkspaceNotFound",
        "",
    ),
    Case("no credential", (), "CredentialError", "", without=("IDENTITY_ENDPOINT",)),
    Case(
        "a Prefect server that is down",
        (),
        "ConfigurationError",
        "PREFECT_API_URL",
        prefect="http://127.0.0.1:9/api",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.mistake.replace(" ", "-"))
@pytest.mark.usefixtures("prefect_server")
def test_a_mistake_is_refused_before_anything_is_created(
    case: Case,
    emulator: Any,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    refuse: Callable[[Case], tuple[int, dict[str, Any]]],
) -> None:
    """Exit 2, the right code and place, a remedy, no traceback, no meter, no change in Azure.

    What is said is what docs/refusals.md shows, word for word.
    """
    code, report = refuse(case)

    said = capsys.readouterr().err
    assert 2 == code
    assert ("Refused", case.code) == (report["state"], report["error"]["code"])
    assert case.where in (report["error"]["where"] or "")
    assert report["error"]["remedy"]
    assert 1 == said.count("finetune: refused, nothing was created")
    assert _row(case, report["error"]) in REFUSALS_PAGE.read_text(encoding="utf-8")
    assert [] == emulator.ledger()["meters"]
    assert [] == [row for row in emulator.requests() if row["method"] in ("PUT", "DELETE")]


def test_a_person_sees_one_message_and_no_traceback(
    emulator: Any, prefect_server: str, tmp_path: Path
) -> None:
    """In a process of its own: Prefect's log says Failed, in a line, and the last word is ours."""
    command = [sys.executable, "-m", "cli", "run", "--config", "profiles/local.yaml"]
    ended = subprocess.run(
        [*command, "--set", "compute.size=Standard_D12_v2"],
        env={**os.environ, "FINETUNE_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert 2 == ended.returncode
    assert "Traceback" not in ended.stderr
    assert "finetune: refused, nothing was created [SizeNotAllowed]" in ended.stderr
    assert "" == ended.stdout


@pytest.mark.parametrize("name", ["report.html", "file/report.json"])
def test_a_report_that_cannot_be_written_is_refused_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Where the page would take the JSON's name, or the folder is a file: hours before its end."""
    (tmp_path / "file").touch()

    code = main(["run", "--config", "profiles/local.yaml", "--report", str(tmp_path / name)])

    assert 2 == code
    assert "[ConfigurationError]" in capsys.readouterr().err
    assert ["file"] == [path.name for path in tmp_path.iterdir()]


@pytest.fixture
def refuse(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Case], tuple[int, dict[str, Any]]]:
    """Run ``finetune run`` with one mistake and return its exit code and report."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))

    def run(case: Case) -> tuple[int, dict[str, Any]]:
        for name in case.without:
            monkeypatch.delenv(name)
        report = tmp_path / "report.json"
        settings = [word for one in (*BASE, *case.settings) for word in ("--set", one)]
        words = ["run", "--config", "profiles/local.yaml", "--report", str(report), *settings]
        with temporary_settings({PREFECT_API_URL: case.prefect} if case.prefect else {}):
            code = main(words)
        return code, json.loads(report.read_text())

    return run


def _row(case: Case, error: dict[str, Any]) -> str:
    where, message, remedy = (
        re.sub(
            r"localhost:\d+",
            "localhost:PORT",
            " ".join((error[name] or "").replace("|", "\\|").replace(str(Path.cwd()), ".").split()),
        )
        for name in ("where", "message", "remedy")
    )
    return f"| {case.mistake} | `{error['code']}` | {where} | {message} | {remedy} |"
