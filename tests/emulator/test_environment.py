"""The client's environment fails closed: no lost variable leads past the emulator."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from azureml_emulator import settings as names
from azureml_emulator.emulator import Emulator
from azureml_emulator.environment import (
    DEAD_PROXY,
    client_environment,
    client_variables,
    foreign_variables,
    write_client_files,
)
from azureml_emulator.server import Server
from azureml_emulator.settings import Settings

if TYPE_CHECKING:
    from tests.conftest import RunningEmulator

FOREIGN = (
    "AZURE_CLIENT_ID",
    "AZURE_CLIENT_SECRET",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "AZURE_AUTHORITY_HOST",
    "AZURE_CONFIG_DIR",
    "AZUREML_ARM_SUBSCRIPTION",
    "AZUREML_RUN_ID",
    "AZUREML_CURRENT_CLOUD",
    "ARM_CLOUD_METADATA_URL",
    "ARM_CLIENT_ID",
    "IDENTITY_ENDPOINT",
    "IDENTITY_SERVER_THUMBPRINT",
    "IMDS_ENDPOINT",
    "MSI_ENDPOINT",
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_TOKEN",
    "PREFECT_API_URL",
    "PREFECT_API_KEY",
    "PREFECT_PROFILE",
    "PREFECT_PROFILES_PATH",
    "DATABRICKS_TOKEN",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "wss_proxy",
    "no_proxy",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "NETRC",
    "REGISTRY_DISCOVERY_ENDPOINT_URL",
)
KEPT = (
    "AZUREML_RUN_POLLING_INTERVAL_MIN",
    "AZUREML_RUN_POLLING_INTERVAL_MAX",
    "PATH",
    "HOME",
    "HF_HOME",
    "MY_AZURE_THING",
    "CHARM_X",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One emulator for all of these, its state in a folder that needs quoting."""
    state = tmp_path_factory.mktemp("environment") / "it's a $HOME; state"
    with Server(Emulator(Settings(state, jobs="scripted"))) as server:
        write_client_files(server)
        yield server


def _after_sourcing(server: Server, environ: dict[str, str], shell: str = "sh") -> dict[str, str]:
    """Return the environment of a process that a shell starts after it read ``client.env``."""
    show = f"{sys.executable} -c 'import json, os; print(json.dumps(dict(os.environ)))'"
    out = subprocess.run(
        [shell, "-euc", f'. "$1" && {show}', shell, str(server.emulator.settings.client_env)],
        env={"PATH": os.environ["PATH"]} | environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == out.stderr
    found: dict[str, str] = json.loads(out.stdout)
    return found


@pytest.mark.parametrize("name", FOREIGN)
def test_what_leads_elsewhere_is_foreign(name: str) -> None:
    """Each of these has led somebody's client to somebody's Azure."""
    assert [name] == foreign_variables({name: "x"})


@pytest.mark.parametrize("name", KEPT)
def test_what_leads_nowhere_stays(name: str) -> None:
    """The user's shell is theirs, and how often `jobs.stream` polls is too."""
    assert [] == foreign_variables({name: "x"})


@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh"])
def test_a_shell_that_reads_client_env_has_the_clients_environment(
    server: Server, shell: str
) -> None:
    """Also one with foreign variables of its own, with `set -eu`, and with odd values."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell} here")
    environ = dict.fromkeys(FOREIGN, "decoy") | {
        "AZUREML_RUN_POLLING_INTERVAL_MIN": "1",
        "ODD": "two\nAZURE_LINES=1 'and' $quotes",
        "MINE": "kept",
    }
    found = _after_sourcing(server, environ, shell)
    ours = client_variables(server)

    assert ours == {name: found[name] for name in ours}
    assert set() == set(foreign_variables(found)) - set(ours)
    assert ("1", "kept", environ["ODD"]) == (
        found["AZUREML_RUN_POLLING_INTERVAL_MIN"],
        found["MINE"],
        found["ODD"],
    )


def test_exec_and_client_env_agree(server: Server) -> None:
    """A command under `exec` and one after `. client.env` see the same."""
    environ = {"PATH": os.environ["PATH"], "AZURE_CLIENT_ID": "decoy", "MINE": "kept"}
    sourced = _after_sourcing(server, environ)
    executed = client_environment(server, environ)

    assert executed == {name: sourced[name] for name in executed}
    assert set() == set(sourced) - set(executed) - {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}


def test_prefect_and_the_proxies_are_closed(server: Server) -> None:
    """Prefect has a home of its own and no server; other hosts are behind a port nobody is on."""
    ours = client_variables(server)

    assert str(server.emulator.settings.state / "prefect") == ours["PREFECT_HOME"]
    assert ("", "false") == (ours["PREFECT_API_URL"], ours["PREFECT_SERVER_ANALYTICS_ENABLED"])
    assert {"PREFECT_API_URL", "PREFECT_HOME", "PREFECT_SERVER_ANALYTICS_ENABLED"} == {
        name for name in ours if name.startswith("PREFECT_")
    }
    assert {DEAD_PROXY} == {
        ours[name] for name in ("HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy")
    }
    host, port = DEAD_PROXY.removeprefix("http://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_the_identity_secret_is_private(server: Server) -> None:
    """Whoever can read client.env can act as the workspace's owner."""
    settings = server.emulator.settings

    assert 0o600 == stat.S_IMODE(settings.client_env.stat().st_mode)
    assert 0o700 == stat.S_IMODE(settings.state.stat().st_mode)
    assert server.emulator.tokens.identity_header not in settings.config_json.read_text()


def test_config_json_names_the_workspace(server: Server) -> None:
    """What `MLClient.from_config` reads."""
    assert {
        "subscription_id": names.SUBSCRIPTION_ID,
        "resource_group": names.RESOURCE_GROUP,
        "workspace_name": names.WORKSPACE_NAME,
    } == json.loads(server.emulator.settings.config_json.read_text())


CLIENT = """
import json, os
import requests
from azure.ai.ml import MLClient
from azure.core.exceptions import ResourceNotFoundError
from azure.identity import DefaultAzureCredential
from prefect.settings import get_current_settings

workspace = MLClient(
    DefaultAzureCredential(),
    os.environ["AZUREML_ARM_SUBSCRIPTION"],
    os.environ["AZUREML_ARM_RESOURCEGROUP"],
    os.environ["AZUREML_ARM_WORKSPACE_NAME"],
)
registry = MLClient(DefaultAzureCredential(), registry_name="azureml")
listed = [len(list(workspace.online_endpoints.list())), len(list(workspace.jobs.list()))]
refusal = None
try:
    list(MLClient.from_config(DefaultAzureCredential()).online_endpoints.list())
except ResourceNotFoundError as error:
    refusal = error.error.code
refused = []
for url in ("https://management.azure.com/", "http://example.org/", "https://huggingface.co/"):
    try:
        requests.get(url, timeout=5)
    except requests.exceptions.ProxyError:
        refused.append(url)
prefect = get_current_settings()
print(json.dumps({
    "workspace": workspace.workspaces.get(workspace.workspace_name).name,
    "by_config": refusal,
    "listed": listed,
    "refused": len(refused),
    "prefect": [str(prefect.home), prefect.api.url, str(prefect.profiles_path)],
}))
"""


@pytest.fixture
def trap() -> Iterator[socket.socket]:
    """A port to which every decoy points; a connection to it is a leak."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


@pytest.fixture
def home(tmp_path: Path, trap: socket.socket) -> Path:
    """A user's home with a login, a workspace, a profile and a netrc that must not be used."""
    url = f"http://127.0.0.1:{trap.getsockname()[1]}"
    elsewhere = {
        "subscription_id": "dec0dec0-0000-4000-8000-000000000000",
        "resource_group": "production",
        "workspace_name": "production",
    }
    files = {
        ".azure/azureProfile.json": json.dumps({"subscriptions": [{"id": "decoy"}]}),
        ".azure/config": "[defaults]\ngroup = production\n",
        ".azureml/config.json": json.dumps(elsewhere),
        "config.json": json.dumps(elsewhere),
        ".netrc": "default login decoy password decoy\n",
        ".prefect/profiles.toml": f'active = "p"\n[profiles.p]\nPREFECT_API_URL = "{url}/api"\n',
        "bin/az": '#!/bin/sh\necho az >> "$HOME/called"\n',
        "bin/browser": '#!/bin/sh\necho browser >> "$HOME/called"\n',
        "project/empty": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for program in (tmp_path / "bin").iterdir():
        program.chmod(0o755)
    (tmp_path / ".netrc").chmod(0o600)
    return tmp_path


def _decoys(url: str) -> dict[str, str]:
    return {
        "AZURE_CLIENT_ID": "decoy",
        "AZURE_CLIENT_SECRET": "decoy",
        "AZURE_TENANT_ID": "dec0dec0-0000-4000-8000-000000000000",
        "AZURE_AUTHORITY_HOST": url,
        "AZUREML_ARM_SUBSCRIPTION": "dec0dec0-0000-4000-8000-000000000000",
        "AZUREML_ARM_RESOURCEGROUP": "production",
        "AZUREML_ARM_WORKSPACE_NAME": "production",
        "AZUREML_CURRENT_CLOUD": "AzureCloud",
        "ARM_CLOUD_METADATA_URL": f"{url}/metadata",
        "IDENTITY_ENDPOINT": f"{url}/msi",
        "IDENTITY_HEADER": "decoy",
        "IDENTITY_SERVER_THUMBPRINT": "decoy",
        "MLFLOW_TRACKING_URI": url,
        "PREFECT_API_URL": f"{url}/api",
        "PREFECT_API_KEY": "decoy",
        "PREFECT_PROFILE": "p",
        "HTTPS_PROXY": url,
        "http_proxy": url,
        "ALL_PROXY": url,
        "no_proxy": "",
    }


@pytest.mark.parametrize("how", ["exec", "sourced"])
def test_a_client_among_decoys_reaches_the_emulator_and_nothing_else(
    serving: RunningEmulator, home: Path, trap: socket.socket, how: str
) -> None:
    """All the SDKs' requests arrive here; no login, profile, proxy or browser is touched."""
    url = f"http://127.0.0.1:{trap.getsockname()[1]}"
    environ = _decoys(url) | {
        "HOME": str(home),
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        "BROWSER": str(home / "bin" / "browser"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    write_client_files(serving.server)
    if how == "exec":
        command = [sys.executable, "-c", CLIENT]
        environ = client_environment(serving.server, environ)
    else:
        command = ["sh", "-c", '. "$0"; exec "$@"', str(serving.state / "client.env")]
        command += [sys.executable, "-c", CLIENT]
    before = len(serving.requests())
    done = subprocess.run(
        command, env=environ, cwd=home / "project", capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    assert names.WORKSPACE_NAME == told["workspace"]
    assert "SubscriptionNotFound" == told["by_config"]
    assert [0, 0] == told["listed"]
    assert 3 == told["refused"]
    assert [str(serving.state / "prefect"), ""] == told["prefect"][:2]
    assert told["prefect"][2].startswith(str(serving.state / "prefect"))
    assert {200, 404} == {row["status"] for row in serving.requests()[before:]}
    assert not (home / "called").exists()
    with pytest.raises(BlockingIOError):
        trap.accept()
