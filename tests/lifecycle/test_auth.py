"""Signing in and finding the workspace: quick to refuse, and never a surprise."""

from __future__ import annotations

import json
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lifecycle import auth, clients
from lifecycle.auth import WorkspaceSpec, authenticate, resolve_workspace
from lifecycle.clients import WorkspaceRef
from lifecycle.errors import CredentialError, WorkspaceNotConfigured, WorkspaceNotFound

NAMES = {"subscription_id": "s-param", "resource_group": "g-param", "name": "w-param"}
ENVIRON = {
    "AZUREML_ARM_SUBSCRIPTION": "s-env",
    "AZUREML_ARM_RESOURCEGROUP": "g-env",
    "AZUREML_ARM_WORKSPACE_NAME": "w-env",
}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A config.json as the studio gives it."""
    path = tmp_path / "elsewhere" / "config.json"
    path.parent.mkdir()
    path.write_text(
        json.dumps(
            {"subscription_id": "s-file", "resource_group": "g-file", "workspace_name": "w-file"}
        )
    )
    return path


@pytest.fixture
def silent_endpoint() -> Iterator[str]:
    """A managed identity endpoint that takes the call and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/token"


@pytest.fixture
def tripwire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A browser that leaves a mark when it is opened."""
    mark = tmp_path / "browser-was-opened"
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho \"$@\" >> '{mark}'\n")
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("BROWSER", str(browser))
    return mark


def names_of(ref: WorkspaceRef) -> tuple[str, str, str]:
    """The three names."""
    return ref.subscription_id, ref.resource_group, ref.name


def test_parameters_win_over_the_environment() -> None:
    """What a person writes goes before what the machine happens to have set."""
    found = resolve_workspace(WorkspaceSpec(**NAMES), ENVIRON)

    assert ("s-param", "g-param", "w-param") == names_of(found)


def test_the_environment_wins_over_a_config_file_that_lies_about(
    emulator: Any, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A config.json in a folder above is the last resort."""
    monkeypatch.chdir(config.parent)

    assert ("s-env", "g-env", "w-env") == names_of(resolve_workspace(WorkspaceSpec(), ENVIRON))
    assert ("s-file", "g-file", "w-file") == names_of(resolve_workspace(WorkspaceSpec(), {}))


def test_a_config_file_that_is_named_wins_over_the_environment(emulator: Any, config: Path) -> None:
    """config_path is a parameter like the three names."""
    spec = WorkspaceSpec(config_path=str(config))

    assert ("s-file", "g-file", "w-file") == names_of(resolve_workspace(spec, ENVIRON))


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"subscription_id": "s"}, "workspace.resource_group"),
        ({"subscription_id": "s", "name": "w"}, "workspace.resource_group"),
        ({"resource_group": "g", "name": "w"}, "workspace.subscription_id"),
    ],
)
def test_names_are_not_completed_from_another_source(given: dict[str, str], missing: str) -> None:
    """Half a name and another workspace's other half would be some third workspace."""
    with pytest.raises(WorkspaceNotConfigured) as raised:
        resolve_workspace(WorkspaceSpec(**given), ENVIRON)

    assert missing == raised.value.where
    assert "not" in raised.value.message


def test_a_half_set_environment_is_refused_naming_what_is_missing() -> None:
    """Two of three variables are a mistake, not a reason to look further."""
    environ = {key: value for key, value in ENVIRON.items() if "RESOURCEGROUP" not in key}

    with pytest.raises(WorkspaceNotConfigured, match="not AZUREML_ARM_RESOURCEGROUP"):
        resolve_workspace(WorkspaceSpec(), environ)


def test_a_name_and_a_config_file_at_once_are_refused(config: Path) -> None:
    """Two parameters that name a workspace may name two of them."""
    with pytest.raises(WorkspaceNotConfigured, match="another name"):
        resolve_workspace(WorkspaceSpec(**NAMES, config_path=str(config)), {})


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "3", '{"subscription_id": "s"}', "[" * 100_000]
)
def test_no_usable_workspace_is_refused(tmp_path: Path, text: str | None) -> None:
    """A missing, broken or partial config.json is one message that says what to set."""
    path = tmp_path / "broken" / "config.json"
    path.parent.mkdir()
    if text is not None:
        path.write_text(text)

    with pytest.raises(WorkspaceNotConfigured) as raised:
        resolve_workspace(WorkspaceSpec(config_path=str(path)), {})

    assert "AZUREML_ARM_SUBSCRIPTION" in str(raised.value)
    assert str(path) in raised.value.message


@pytest.mark.parametrize("key", ["subscription_id", "resource_group", "workspace_name"])
@pytest.mark.parametrize("value", [None, "", "  ", 7, ["s"], {"id": "s"}, False])
def test_a_name_that_is_no_text_is_refused(config: Path, key: str, value: object) -> None:
    """A null never becomes the subscription "None": key and file are named."""
    document = json.loads(config.read_text())
    config.write_text(json.dumps({**document, key: value}))

    with pytest.raises(WorkspaceNotConfigured) as raised:
        resolve_workspace(WorkspaceSpec(config_path=str(config)), {})

    assert f"{key} is {json.dumps(value)}" in raised.value.message
    assert str(config) == raised.value.where


SCOPE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/"


def test_a_config_file_of_the_first_sdk_names_the_workspace(config: Path) -> None:
    """Its Scope is the workspace's id."""
    config.write_text(json.dumps({"Id": None, "Scope": f"{SCOPE}w"}))

    found = resolve_workspace(WorkspaceSpec(config_path=str(config)), {})

    assert ("s", "g", "w") == names_of(found)


@pytest.mark.parametrize("scope", [SCOPE, "/subscriptions/s", "None", 7, [SCOPE], {"a": "b"}])
def test_a_scope_that_is_no_workspace_is_refused(config: Path, scope: object) -> None:
    """Cut short, or of another type: the file is named."""
    config.write_text(json.dumps({"Scope": scope}))

    with pytest.raises(WorkspaceNotConfigured, match="Scope in ") as raised:
        resolve_workspace(WorkspaceSpec(config_path=str(config)), {})

    assert str(config) == raised.value.where


@pytest.mark.parametrize(
    "place", ["config.json", ".azureml/config.json", "aml_config/project.json"]
)
def test_a_config_file_is_found_where_the_sdk_finds_it(
    emulator: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """From the working folder upwards; the SDK's own reader is the measure."""
    from azure.ai.ml import MLClient

    names = {"subscription_id": "s", "resource_group": "g", "workspace_name": "w"}
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps({**names, "workspace_name": "above"}))
    (tmp_path / place).write_text(json.dumps(names), encoding="utf-8-sig")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    nobody: Any = object()
    theirs = MLClient.from_config(nobody, enable_telemetry=False)

    assert ("s", "g", "w") == names_of(resolve_workspace(WorkspaceSpec(), {}))
    assert "w" == theirs.workspace_name


def test_a_config_path_that_is_not_there_is_not_looked_for_above(config: Path) -> None:
    """A slip in its name must not lead to the workspace of another file."""
    with pytest.raises(WorkspaceNotConfigured, match="There is no "):
        resolve_workspace(WorkspaceSpec(config_path=f"{config.parent / 'conifg.json'}"), {})


def test_signing_in_returns_facts_and_no_token(workspace: WorkspaceRef) -> None:
    """The result is small, JSON, and holds nothing that could be stolen from a log."""
    spec = WorkspaceSpec(
        subscription_id=workspace.subscription_id,
        resource_group=workspace.resource_group,
        name=workspace.name,
    )
    found = authenticate(spec)

    token = clients.credential(workspace).get_token(clients.cloud().arm_scope).token
    shown = found.model_dump_json()
    assert workspace == found.ref
    assert "eastus2" == found.region
    assert found.tenant_id is not None
    assert f"wsid={workspace.arm_id}&tid={found.tenant_id}" in found.studio_url
    assert found.mlflow_tracking_uri.startswith("azureml://")
    assert found.discovery_url.startswith("https://")
    assert found.workspace_id
    assert token not in shown


def test_the_environment_names_the_workspace(workspace: WorkspaceRef) -> None:
    """An empty configuration works where the machine says which workspace it belongs to."""
    assert workspace == authenticate(WorkspaceSpec()).ref


def test_a_workspace_that_is_not_there_is_refused(workspace: WorkspaceRef) -> None:
    """A typing error in the name is told as such, before anything is created."""
    spec = WorkspaceSpec(
        subscription_id=workspace.subscription_id,
        resource_group=workspace.resource_group,
        name="no-such-workspace",
    )

    with pytest.raises(WorkspaceNotFound, match="no-such-workspace"):
        authenticate(spec)


def test_a_workspace_that_may_not_be_read_is_refused(emulator: Any, workspace: Any) -> None:
    """403 means that the names or the identity are wrong, not that Azure is broken."""
    emulator.faults({"match": {"path": "/workspaces/[^/]+$"}, "effect": {"status": 403}})

    with pytest.raises(WorkspaceNotFound):
        authenticate(WorkspaceSpec())


def test_a_credential_that_hangs_ends_at_the_deadline(
    emulator: Any, silent_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unattended run is told in a minute, not when somebody looks."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", silent_endpoint)
    began = time.monotonic()

    with pytest.raises(CredentialError, match=r"within 0\.2 s"):
        authenticate(WorkspaceSpec(), deadline_seconds=0.2)

    assert time.monotonic() - began < 10


def without_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the default chain nothing that could give a token."""
    monkeypatch.delenv("IDENTITY_ENDPOINT")
    monkeypatch.delenv("IDENTITY_HEADER")
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
    clients.forget()


@pytest.mark.parametrize("allowed", [False, True])
def test_an_unattended_run_opens_no_browser(
    emulator: Any,
    tripwire: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    allowed: bool,
) -> None:
    """With nobody at the terminal the run fails with the remedy: no browser, no device code."""
    without_credential(monkeypatch)

    with pytest.raises(CredentialError, match="az login") as raised:
        authenticate(WorkspaceSpec(allow_interactive_login=allowed), interactive=False)

    assert raised.value.message.startswith("No credential gave")
    said = capfd.readouterr()
    assert not tripwire.exists()
    assert "devicelogin" not in said.out + said.err


def test_a_person_who_did_not_allow_it_sees_no_browser(
    emulator: Any, tripwire: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal alone is no consent."""
    without_credential(monkeypatch)

    with pytest.raises(CredentialError, match="No credential gave"):
        authenticate(WorkspaceSpec(allow_interactive_login=False), interactive=True)

    assert not tripwire.exists()


def test_the_environment_cannot_ask_for_a_browser(
    emulator: Any, tripwire: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AZURE_TOKEN_CREDENTIALS may name the browser; an unattended run does not follow it."""
    without_credential(monkeypatch)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "InteractiveBrowserCredential")

    with pytest.raises(CredentialError) as raised:
        authenticate(WorkspaceSpec(), interactive=False)

    assert "AZURE_TOKEN_CREDENTIALS" == raised.value.where
    assert not tripwire.exists()


def test_a_person_at_the_terminal_who_allowed_it_is_asked(
    emulator: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The browser is tried, after the default chain: here it fails for want of a login page."""
    without_credential(monkeypatch)

    with pytest.raises(CredentialError, match="No browser login gave a token"):
        authenticate(WorkspaceSpec(allow_interactive_login=True), interactive=True)

    assert "EnvironmentCredential" in caplog.text
    assert "Opening a browser" in caplog.text


def test_a_credential_of_an_unknown_name_is_refused(
    emulator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typing error in AZURE_TOKEN_CREDENTIALS names the variable."""
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "ManagedIdenttyCredential")

    with pytest.raises(CredentialError) as raised:
        authenticate(WorkspaceSpec())

    assert "AZURE_TOKEN_CREDENTIALS" == raised.value.where


def test_nobody_is_at_a_terminal_when_a_stream_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service has no stdin at all: that is nobody."""
    monkeypatch.setattr(sys, "stdin", None)

    assert not auth.person_at_terminal()
