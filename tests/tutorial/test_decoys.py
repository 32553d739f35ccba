"""Fail closed: what runs on the emulator reaches nothing of the user's, however much lies about.

Decoys of everything by which Azure, Prefect or MLflow could be found are planted: a working ``az``
and ``azd``, sign-ins and profiles in the home folder, a ``config.json`` in a folder above, settings
files of Prefect's beside the command, and variables for all of them. Each command there writes
down that it was called, and each address is a trap that writes down who comes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DECOY = "0000dec0-dec0-4dec-8dec-00000000dec0"
TRIPWIRES = ("az", "azd", "browser", "open", "powershell", "pwsh", "wslview", "xdg-open")
# What `az account get-access-token` would answer.
TOKEN = {
    "accessToken": "decoy",
    "expiresOn": "2099-01-01 00:00:00.000000",
    "expires_on": 4070908800,
    "subscription": DECOY,
    "tenant": DECOY,
    "tokenType": "Bearer",
}


class Trap:
    """A loopback port that takes note of each connection, and hangs up."""

    def __init__(self) -> None:
        self.visits: list[bytes] = []
        self._open = True
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        self._open = False
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while True:
            visitor, _ = self._socket.accept()
            with visitor:
                if not self._open:
                    return
                visitor.settimeout(1)
                try:
                    self.visits.append(visitor.recv(200))
                except OSError as error:
                    self.visits.append(str(error).encode())


class Decoys:
    """What lies about on the user's machine, and what was touched of it."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.work = folder / "project" / "work"
        self.config = folder / "project" / "config.json"
        self.trap = Trap()
        self._calls = folder / "calls"
        self._bin = folder / "bin"
        for made in (self.home, self.work, self._bin):
            made.mkdir(parents=True)
        self._plant_commands()
        self._plant_files()
        self.environ = self._variables()
        self.before = self._home_files()

    def touched(self) -> list[str]:
        """Return who came, what was called, and what was written in the home folder."""
        visits = [f"visit: {first!r}" for first in self.trap.visits]
        calls = self._calls.read_text().splitlines() if self._calls.exists() else []
        written = sorted(self._home_files() - self.before)
        return visits + calls + written

    def _plant_commands(self) -> None:
        for name in TRIPWIRES:
            command = self._bin / name
            command.write_text(
                f'#!/bin/sh\necho "called: {name} $*" >> {self._calls}\n'
                f"echo '{json.dumps(TOKEN)}'\n"
            )
            command.chmod(0o755)

    def _plant_files(self) -> None:
        url = f"http://127.0.0.1:{self.trap.port}"
        account = {"id": DECOY, "name": "decoy", "tenantId": DECOY, "isDefault": True}
        workspace = {"subscription_id": DECOY, "resource_group": "decoy", "workspace_name": "decoy"}
        files = {
            self.home / ".azure" / "azureProfile.json": json.dumps({"subscriptions": [account]}),
            self.home / ".azure" / "msal_token_cache.json": "{}",
            self.home / ".azd" / "config.json": "{}",
            self.home / ".netrc": "default login decoy password decoy\n",
            self.home / ".prefect" / "profiles.toml": (
                f'active = "decoy"\n[profiles.decoy]\nPREFECT_API_URL = "{url}/api"\n'
            ),
            self.config: json.dumps(workspace),
            self.work / ".env": f"PREFECT_API_URL={url}/api\n",
            self.work / "prefect.toml": f'[api]\nurl = "{url}/api"\n',
        }
        for path, text in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def _variables(self) -> dict[str, str]:
        url = f"http://127.0.0.1:{self.trap.port}"
        secure = f"https://127.0.0.1:{self.trap.port}"
        kept = ("LANG", "PYTHONPATH", "TMPDIR")
        token_file = self.home / "token"
        token_file.write_text("decoy")
        return {
            **{name: os.environ[name] for name in kept if name in os.environ},
            "PATH": f"{self._bin}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": str(self.home),
            "FINETUNE_CACHE": str(self.work / "cache"),
            "ARM_CLOUD_METADATA_URL": f"{secure}/metadata",
            "AZURE_AUTHORITY_HOST": secure,
            "AZURE_CLIENT_ID": DECOY,
            "AZURE_CLIENT_SECRET": "decoy",
            "AZURE_CONFIG_DIR": str(self.home / ".azure"),
            "AZURE_FEDERATED_TOKEN_FILE": str(token_file),
            "AZURE_PASSWORD": "decoy",
            "AZURE_SUBSCRIPTION_ID": DECOY,
            "AZURE_TENANT_ID": DECOY,
            "AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential",
            "AZURE_USERNAME": "decoy@example.invalid",
            "AZUREML_ARM_RESOURCEGROUP": "decoy",
            "AZUREML_ARM_SUBSCRIPTION": DECOY,
            "AZUREML_ARM_WORKSPACE_NAME": "decoy",
            "AZUREML_CURRENT_CLOUD": "AzureCloud",
            "BROWSER": str(self._bin / "browser"),
            "DISPLAY": ":0",
            "HF_ENDPOINT": url,
            "HTTP_PROXY": url,
            "HTTPS_PROXY": url,
            "https_proxy": url,
            "ALL_PROXY": url,
            "NO_PROXY": "",
            "IDENTITY_ENDPOINT": f"{url}/msi/token",
            "IDENTITY_HEADER": "decoy",
            "MLFLOW_REGISTRY_URI": url,
            "MLFLOW_TRACKING_TOKEN": "decoy",
            "MLFLOW_TRACKING_URI": url,
            "PREFECT_API_KEY": "decoy",
            "PREFECT_API_URL": f"{url}/api",
            "PREFECT_PROFILE": "decoy",
            "REGISTRY_DISCOVERY_ENDPOINT_URL": f"{secure}/",
            "REQUESTS_CA_BUNDLE": str(token_file),
        }

    def _home_files(self) -> set[str]:
        return {f"written: {path}" for path in self.home.rglob("*") if path.is_file()}


@pytest.fixture
def decoys(tmp_path: Path) -> Iterator[Decoys]:
    """Every decoy, fresh."""
    planted = Decoys(tmp_path)
    yield planted
    planted.trap.close()


FINETUNE = ["python", "-m", "cli"]
LOCAL = ["--config", str(ROOT / "profiles" / "local.yaml")]
DATA = ["--set", f"dataset.path={ROOT / 'demo' / 'ultrachat'}"]


@pytest.mark.parametrize("verb", ["doctor", "plan", "run", "sweep"])
def test_the_product_touches_no_decoy(decoys: Decoys, tmp_path: Path, verb: str) -> None:
    """``finetune`` on the emulator does all it does, and nobody notices outside."""
    settings = DATA if verb in ("plan", "run") else []
    done = _on_emulator(decoys, tmp_path, [*FINETUNE, verb, *LOCAL, *settings])

    said = done.stdout + done.stderr
    assert [] == decoys.touched()
    assert 0 == done.returncode, said
    assert DECOY not in said
    assert "Traceback" not in said


def test_the_tutorial_touches_no_decoy(
    decoys: Decoys, tmp_path: Path, start_emulator: Callable[..., Any]
) -> None:
    """A script of another's is as safe as ours, in a folder that names no other workspace."""
    decoys.config.unlink()
    done = _tutorial(decoys, tmp_path)

    assert [] == decoys.touched()
    assert 0 == done.returncode, done.stdout + done.stderr


def test_a_script_that_reads_another_workspace_fails_at_the_emulator(
    decoys: Decoys, tmp_path: Path, start_emulator: Callable[..., Any]
) -> None:
    """The tutorial asks config.json first: the emulator says no, and nothing else is asked."""
    done = _tutorial(decoys, tmp_path)

    assert [] == decoys.touched()
    assert 0 != done.returncode
    assert "ValueError: The workspace cannot have the size" in done.stderr
    assert f"The subscription '{DECOY}' could not be found." in done.stdout
    assert [] == start_emulator(catalog="2024").ledger()["meters"]


def test_without_the_emulator_the_decoys_are_taken(decoys: Decoys) -> None:
    """The same command in the same place, on its own, walks into them: they are no dummies."""
    done = _call(decoys, [*FINETUNE, "plan", *LOCAL, *DATA])

    assert 0 != done.returncode
    assert any(line.startswith("visit:") for line in decoys.touched())


def _tutorial(decoys: Decoys, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    for name in ("tutorial.py", "download-dataset.py"):
        shutil.copy(Path(__file__).with_name(name), decoys.work)
    return _on_emulator(decoys, tmp_path, ["python", "tutorial.py"], "--catalog", "2024")


def _on_emulator(
    decoys: Decoys, tmp_path: Path, command: list[str], *choices: str
) -> subprocess.CompletedProcess[str]:
    state = ["--jobs", "scripted", "--state", str(tmp_path / "emulator")]
    return _call(
        decoys, ["python", "-m", "azureml_emulator", "exec", *state, *choices, "--", *command]
    )


def _call(decoys: Decoys, command: list[str]) -> subprocess.CompletedProcess[str]:
    environ = dict(decoys.environ)
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command,
        check=False,
        cwd=decoys.work,
        env=environ,
        capture_output=True,
        text=True,
        timeout=180,
    )
