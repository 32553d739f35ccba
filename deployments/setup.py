"""``python -m deployments.setup``: what ``prefect deploy --all`` cannot; run it after each deploy.

It signs in and looks at the workspace, names it in every deployment, makes the automations and the
notifications, and then sets the schedules going. It may be run again. PREFECT_API_URL says on which
server. Exit codes: 0 done; 1 Azure or Prefect did not answer; 2 refused, and nothing was changed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefect import get_client
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound

from lifecycle.auth import WorkspaceResult, authenticate
from lifecycle.config import check_config, check_workspace, read_values
from lifecycle.errors import ConfigurationError

from .automations import ensure_automations
from .command import exit_code
from .definitions import ALL, FINETUNE, RETRAIN
from .notifications import check_blocks, ensure_notifications
from .variables import notified, with_workspace


def main(arguments: list[str] | None = None) -> int:
    """Set up what has been deployed, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.setup", description=__doc__)
    parser.add_argument("--config", type=Path, metavar="FILE", help="parameters of the training")
    parser.add_argument("--set", action="append", default=[], metavar="a.b=value")
    parser.add_argument(
        "--notify",
        action="append",
        metavar="TYPE/NAME",
        help="a notification block, such as slack-webhook/team; repeatable; default: those of "
        "Prefect's variable finetune_notify",
    )
    parser.add_argument("--notify-success", action="store_true", help="tell of these, too")
    chosen = parser.parse_args(arguments)
    return exit_code("setup", lambda: _set_up(chosen))


def _set_up(chosen: argparse.Namespace) -> None:
    values = with_workspace(read_values(chosen.config, chosen.set))
    source = None if chosen.config is None else str(chosen.config)
    if chosen.config is not None:
        check_config(values, source=source)
    blocks = notified() if chosen.notify is None else chosen.notify
    check_blocks(blocks)
    workspace = authenticate(check_workspace(values, source=source))
    configure(workspace, values)
    made = ensure_automations()
    told = ensure_notifications(blocks, on_success=chosen.notify_success)
    start_schedules()
    print(f"Workspace {workspace.ref.name} in {workspace.region}; {RETRAIN} is scheduled.")
    for name in (*made, *told.made):
        print(f"Automation: {name}")
    for name in told.removed:
        print(f"Removed, since it was not asked for: {name}")


def configure(
    workspace: WorkspaceResult,
    values: dict[str, Any],
    *,
    deployments: Iterable[str] = ALL,
) -> None:
    """Name the workspace in the deployments.

    Args:
        workspace: The workspace as it was seen.
        values: The sections of a configuration; they take the place of prefect.yaml's in the
            deployments that train.
        deployments: Those that were deployed.

    Raises:
        ConfigurationError: One of them is not there; none was changed.
    """
    names = workspace.ref.model_dump(
        mode="json", include={"subscription_id", "resource_group", "name"}
    )
    section = {key: one for key, one in values.get("workspace", {}).items() if key != "config_path"}
    with get_client(sync_client=True) as client:
        for name, deployment in {name: _read(client, name) for name in deployments}.items():
            accepted = (deployment.parameter_openapi_schema or {}).get("properties", {})
            given = (values if name in FINETUNE else {}) | {"workspace": section | names}
            parameters = deployment.parameters | {
                key: value for key, value in given.items() if key in accepted
            }
            client.update_deployment(deployment.id, DeploymentUpdate(parameters=parameters))


def start_schedules(deployments: Iterable[str] = ALL) -> None:
    """Set the paused schedules of deployments going; when all that they start is set up.

    Raises:
        ConfigurationError: One of them is not there.
    """
    with get_client(sync_client=True) as client:
        for deployment in [_read(client, name) for name in deployments]:
            for schedule in deployment.schedules:
                client.update_deployment_schedule(deployment.id, schedule.id, active=True)


def _read(client: SyncPrefectClient, name: str) -> DeploymentResponse:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound as error:
        raise ConfigurationError(
            "it is not deployed.", where=name, remedy="Run `prefect deploy --all` first."
        ) from error


if __name__ == "__main__":
    sys.exit(main())
