"""``plan``, ``doctor`` and ``sweep``: what they print, what they change, how they exit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator import settings as names

from cli.main import main
from tests.emulator.conftest import Wire

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


@pytest.fixture
def obstacles(emulator: Any) -> list[str]:
    """A delete lock, a role that may not delete, no run history, no metrics: words on each."""
    group = f"/subscriptions/{names.SUBSCRIPTION_ID}/resourceGroups/{names.RESOURCE_GROUP}"
    lock = f"{group}/providers/Microsoft.Authorization/locks/keep"
    Wire(emulator)("PUT", lock, {"properties": {"level": "CanNotDelete"}})
    less = {"value": [{"actions": ["*"], "notActions": ["*/onlineEndpoints/delete"]}]}
    emulator.faults(
        {
            "match": {"path": "/permissions$"},
            "effect": {"status": 200, "body": json.dumps(less)},
        },
        {"match": {"path": "^/history/"}, "effect": {"status": 403}},
        {"match": {"path": "^/mlflow/"}, "effect": {"status": 403}},
    )
    return [
        "A lock on the resource group emulator (keep, CanNotDelete)",
        "may not delete the endpoint",
        "Logs and progress of the job would be missing",
        "Metrics of the job would be missing",
    ]


def test_plan_warns_of_what_stands_in_the_way(
    emulator: Any, obstacles: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Before anything is spent; a warning refuses nothing."""
    code = main(["plan", *LOCAL])

    said = " ".join(capsys.readouterr().out.split())
    assert 0 == code
    assert [] == [words for words in obstacles if words not in said]


def test_plan_as_json_has_all_warnings_in_one_place(
    emulator: Any, obstacles: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """At the top, and with the plan as before; nothing is refused."""
    code = main(["plan", *LOCAL, "--json"])

    document = json.loads(capsys.readouterr().out)
    assert 0 == code
    assert len(obstacles) == len(document["warnings"])
    assert all(words in said for words, said in zip(obstacles, document["warnings"], strict=True))
    assert document["plan"]["warnings"] == document["warnings"]
    assert [] == document["refusals"]


def test_plan_asks_for_the_right_to_make_a_cluster_where_it_would_make_one(
    emulator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """With serverless compute nobody needs it."""
    less = {"value": [{"actions": ["*"], "notActions": ["*/computes/*"]}]}
    emulator.faults(
        {"match": {"path": "/permissions$"}, "effect": {"status": 200, "body": json.dumps(less)}}
    )

    def warnings(*settings: str) -> list[str]:
        assert 0 == main(["plan", *LOCAL, "--json", *settings])
        said: list[str] = json.loads(capsys.readouterr().out)["warnings"]
        return said

    [said] = warnings("--set", "compute.delete_after=true")
    assert "create the cluster" in said
    assert "delete the cluster" in said
    assert [] == warnings("--set", "compute.name=null")


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


def _findings(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, dict[str, Any]]]:
    code = main(["doctor", "--json"])
    return code, {row["what"]: row for row in json.loads(capsys.readouterr().out)}


def test_doctor_warns_of_what_stands_in_the_way(
    emulator: Any, prefect_server: str, obstacles: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each a finding with its remedy, none a problem: exit 0."""
    code, findings = _findings(capsys)

    said = [findings[what] for what in ("locks", "rights", "run history", "mlflow")]
    assert 0 == code
    assert ["warning"] * 4 == [finding["state"] for finding in said]
    assert all(words in one["said"] for words, one in zip(obstacles, said, strict=True))
    assert all(finding["remedy"] for finding in said)


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "<html>",
        "{}",
        '{"value": []}',
        '{"value": [null]}',
        '{"value": [{}]}',
        '{"value": [{"name": null, "limit": 24}]}',
        '{"value": [{"name": {"value": null}, "limit": 24}]}',
        '{"value": [{"name": {"value": "standardNCADSA100v4Family"}, "limit": null}]}',
        '{"value": [{"name": "standardNCADSA100v4Family", "limit": "many"}]}',
    ],
)
def test_quota_that_cannot_be_read_is_a_warning(
    emulator: Any, prefect_server: str, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    """Whatever its shape; the look at the rest goes on."""
    emulator.faults({"match": {"path": "/usages$"}, "effect": {"status": 200, "body": body}})
    code, findings = _findings(capsys)

    assert (0, "warning") == (code, findings["quota"]["state"])
    assert "mlflow" in findings


def test_no_free_quota_is_a_problem(
    emulator: Any, prefect_server: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where every row was read, and none has cores for a GPU."""
    rows = [
        {"name": {"value": "standardNCADSA100v4Family"}, "limit": 24, "currentValue": 24},
        {"name": {"value": "standardDSv2Family"}, "limit": 24, "currentValue": 0},
    ]
    body = json.dumps({"value": rows})
    emulator.faults({"match": {"path": "/usages$"}, "effect": {"status": 200, "body": body}})
    code, findings = _findings(capsys)

    assert (2, "problem") == (code, findings["quota"]["state"])


@pytest.mark.parametrize("body", ["", "null", "[]", '{"value": [{}]}', "<html>"])
def test_a_registry_that_makes_no_sense_is_a_problem_and_no_traceback(
    emulator: Any, prefect_server: str, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    """A run needs it; what follows is looked at all the same."""
    path = "/components/chat_completion_pipeline/"
    emulator.faults({"match": {"path": path}, "effect": {"status": 200, "body": body}})
    code, findings = _findings(capsys)

    assert (2, "problem") == (code, findings["registry"]["state"])
    assert "ok" == findings["quota"]["state"]


@pytest.mark.parametrize("body", ["", "null", "[]", "{}", "<html>", '{"properties": 1}'])
def test_a_workspace_that_makes_no_sense_is_a_problem_and_no_traceback(
    emulator: Any, prefect_server: str, capsys: pytest.CaptureFixture[str], body: str
) -> None:
    """The machine's own findings stand before it."""
    path = "/workspaces/emulator$"
    emulator.faults({"match": {"path": path}, "effect": {"status": 200, "body": body}})
    code, findings = _findings(capsys)

    assert 2 == code
    assert "problem" == list(findings.values())[-1]["state"]
    assert "python" in findings


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
