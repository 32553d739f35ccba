"""The environment of a client: where the emulator is, and no way to anywhere else.

Fail closed: whatever names the user's own Azure, Prefect or MLflow is taken away, the workspace is
named explicitly, and every proxy variable points at a loopback port on which nobody listens, so
that a call to any other host fails at once.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from . import settings as names
from .server import Server

DEAD_PROXY = "http://127.0.0.1:9"

# What azure-identity, azure-ai-ml, azureml-mlflow, mlflow, requests and Prefect read, by their
# sources. A pattern of both `re` and `grep -E`.
_FOREIGN = (
    "^(AZURE|AZUREML|ARM|DATABRICKS|IDENTITY|IMDS|MLFLOW|MSI|OBO|PREFECT)_"
    "|_(proxy|PROXY)$"
    "|^(CURL_CA_BUNDLE|NETRC|REGISTRY_DISCOVERY_ENDPOINT_URL|REQUESTS_CA_BUNDLE|SSL_CERT_FILE)$"
)
# How often jobs.stream polls is the user's to say.
_KEPT = "^AZUREML_RUN_POLLING_INTERVAL_(MIN|MAX)$"

_UNSET = f"""\
for _azureml_emulator in $(
    env | sed -n -E 's/^([A-Za-z_][A-Za-z0-9_]*)=.*/\\1/p' | grep -E '{_FOREIGN}' |
        grep -v -E '{_KEPT}'
); do unset "$_azureml_emulator"; done
unset _azureml_emulator
"""


def client_variables(server: Server) -> dict[str, str]:
    """Return the variables that lead a client to *server*.

    The tricks are those that the SDKs support: a custom cloud by metadata URL, the registry's
    discovery URL, App Service's managed identity, and a CA bundle.
    """
    state = server.emulator.settings.state
    bundle = str(server.emulator.certificates.bundle)
    proxies = {
        "HTTPS_PROXY": DEAD_PROXY,
        "HTTP_PROXY": DEAD_PROXY,
        "NO_PROXY": "localhost,127.0.0.1",
    }
    return {
        "ARM_CLOUD_METADATA_URL": f"{server.url}/metadata/endpoints?api-version=2019-05-01",
        "AZUREML_CURRENT_CLOUD": names.CLOUD_NAME,
        "REGISTRY_DISCOVERY_ENDPOINT_URL": f"{server.url}/",
        "IDENTITY_ENDPOINT": f"{server.url}/msi/token",
        "IDENTITY_HEADER": server.emulator.tokens.identity_header,
        "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        "AZURE_CONFIG_DIR": str(state / "no-azure-cli"),
        "AZUREML_ARM_SUBSCRIPTION": names.SUBSCRIPTION_ID,
        "AZUREML_ARM_RESOURCEGROUP": names.RESOURCE_GROUP,
        "AZUREML_ARM_WORKSPACE_NAME": names.WORKSPACE_NAME,
        "REQUESTS_CA_BUNDLE": bundle,
        "SSL_CERT_FILE": bundle,
        # An entry for localhost or a default one would take the place of every bearer token.
        "NETRC": str(state / "no-netrc"),
        **proxies,
        **{name.lower(): value for name, value in proxies.items()},
        "PREFECT_HOME": str(state / "prefect"),
        # No server. Empty rather than unset: else an .env or a prefect.toml in the working folder
        # would name one.
        "PREFECT_API_URL": "",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "true",
        "AZUREML_EMULATOR_STATE": str(state),
        "AZUREML_EMULATOR_URL": server.url,
    }


def foreign_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the names in *environ* that could lead a client past the emulator."""
    return sorted(
        name for name in environ if re.search(_FOREIGN, name) and not re.search(_KEPT, name)
    )


def client_environment(server: Server, environ: Mapping[str, str]) -> dict[str, str]:
    """Return *environ* without what is foreign and with what leads to *server*."""
    foreign = set(foreign_variables(environ))
    kept = {name: value for name, value in environ.items() if name not in foreign}
    return kept | client_variables(server)


def write_client_files(server: Server) -> None:
    """Write ``client.env`` (mode 0600: it holds the identity secret) and ``config.json``.

    A POSIX shell that reads ``client.env`` drops what is foreign in its own environment, which may
    be another than the one that the emulator was started in.
    """
    settings = server.emulator.settings
    exports = [
        f"export {name}={shlex.quote(value)}\n" for name, value in client_variables(server).items()
    ]
    _write_private(settings.client_env, _UNSET + "".join(exports))
    config = {
        "subscription_id": names.SUBSCRIPTION_ID,
        "resource_group": names.RESOURCE_GROUP,
        "workspace_name": names.WORKSPACE_NAME,
    }
    settings.config_json.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)
