"""``plan``, ``doctor`` and ``sweep``: what they print, what they change, how they exit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.main import main

LOCAL = ("--config", "profiles/local.yaml")


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep data sets out of the user's cache."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))


def test_data_is_prepared_and_shown_without_azure(capsys: pytest.CaptureFixture[str]) -> None:
    """Counts, lengths and a conversation; a folder needs no workspace and no sign-in."""
    code = main(["data", *LOCAL])

    said = capsys.readouterr().out
    assert 0 == code
    assert "train_sft" in said
    assert "Tokens of a conversation in train_sft" in said


def test_data_as_json_is_the_report_s_own(capsys: pytest.CaptureFixture[str]) -> None:
    """What a script reads of the data step is what the run's report holds of it."""
    code = main(["data", *LOCAL, "--json"])

    document = json.loads(capsys.readouterr().out)
    assert 0 == code
    assert {"name", "revision", "files"} <= set(document)
    assert {"split", "path", "rows", "sha256"} <= set(document["files"][0])


def test_plan_prices_and_changes_nothing(emulator: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything a run would check, what it would cost, and no request that changes anything."""
    a100 = ("compute.size", "endpoint.instance_type")
    settings = ["model.name=Phi-4-mini-instruct", "evaluation.baseline=false"]
    settings += [f"{name}=Standard_NC24ads_A100_v4" for name in a100]
    code = main(["plan", *LOCAL, *(word for one in settings for word in ("--set", one))])

    said = capsys.readouterr().out
    assert 0 == code
    assert "Phi-4-mini-instruct-ultrachat-bs4-cosine-ds2-lora-save_limit1-seqlen512" in said
    assert "88.15 USD" in said
    assert "learning_rate_min" in said
    assert set() == {row["method"] for row in emulator.requests()} - {"GET"}


def test_plan_as_json_is_json_alone(emulator: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What the SDK prints of its own does not get between a script and the document."""
    code = main(["plan", *LOCAL, "--json"])

    document = json.loads(capsys.readouterr().out)
    assert 0 == code
    assert "SmolLM2-135M-Instruct-ultrachat-demo" == document["plan"]["registered_name"]
    assert ["hour", "hour", "day"] == [line["per"] for line in document["prices"]]


@pytest.mark.parametrize("profile", ["phi-3-mini-ultrachat", "phi-4-ultrachat", "local"])
def test_every_profile_passes_preflight(
    emulator: Any, capsys: pytest.CaptureFixture[str], profile: str
) -> None:
    """On today's catalogue, with the demo's rows in place of the hub's."""
    rows = ("--set", "dataset.path=demo/ultrachat")
    code = main(["plan", "--config", f"profiles/{profile}.yaml", *rows])

    assert 0 == code, capsys.readouterr().err


def test_the_tutorials_profile_passes_preflight_as_it_was_in_2024(
    start_emulator: Callable[..., Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """With the tutorial's cluster size, and the registry's tags of that day."""
    start_emulator(catalog="2024")
    settings = [
        "--set", "dataset.path=demo/ultrachat",
        "--set", "dataset.short_name=ultrachat",
        "--set", "compute.size=Standard_ND40rs_v2",
    ]  # fmt: skip
    code = main(["plan", "--config", "profiles/phi-3-mini-ultrachat.yaml", *settings])

    said = capsys.readouterr()
    assert 0 == code, said.err
    assert "Phi-3-mini-4k-instruct-ultrachat-bs8-cosine-ds2-lora-save_limit-1" in said.out


def test_doctor_finds_nothing_wrong(
    emulator: Any, prefect_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Versions, Prefect, workspace, credential, registry and quota, each with its state."""
    code = main(["doctor", "--json"])

    findings = {row["what"]: row["state"] for row in json.loads(capsys.readouterr().out)}
    assert {"ok"} == set(findings.values())
    assert {"python", "prefect api", "workspace", "credential", "registry", "quota"} <= set(
        findings
    )
    assert 0 == code


def test_doctor_names_what_is_wrong_with_its_remedy(
    emulator: Any,
    prefect_server: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A workspace that is half named is a problem with a remedy, and exit 2."""
    monkeypatch.delenv("AZUREML_ARM_WORKSPACE_NAME")

    code = main(["doctor"])

    said = capsys.readouterr().out
    assert 2 == code
    assert "WorkspaceNotConfigured" in said
    assert "Set all three" in said


def test_sweep_is_dry_unless_it_is_told(
    emulator: Any, expired: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names what has expired, leaves it, and exits 3: something is left that bills."""
    code = main(["sweep"])

    assert 3 == code
    assert expired in capsys.readouterr().out
    assert 1 == len(emulator.open_meters())


def test_sweep_deletes_what_has_expired(
    emulator: Any, expired: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --apply it is gone, and the JSON says so and nothing else is printed."""
    code = main(["sweep", "--apply", "--json"])

    document = json.loads(capsys.readouterr().out)
    assert 0 == code
    assert [[expired], []] == [document["deleted"], document["left"]]
    assert [] == emulator.open_meters()
