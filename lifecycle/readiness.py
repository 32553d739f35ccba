"""What a run will need of its workspace, looked at before anything is spent.

Delete locks, rights, and the data plane: ``finetune plan`` and ``finetune doctor`` look here. Each
look may itself be refused, and is then a warning; nothing is tried twice, and nothing is decided by
what is found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from lifecycle.aside import aside
from lifecycle.auth import WorkspaceResult
from lifecycle.azure import translated
from lifecycle.clients import WorkspaceRef, get_once
from lifecycle.courtesy import what_failed
from lifecycle.errors import ServiceError

_LOCKS_VERSION = "2016-09-01"
_PERMISSIONS_VERSION = "2022-04-01"

_PROVIDER = "Microsoft.MachineLearningServices/workspaces/"
_DATA_SCIENTIST = "AzureML Data Scientist"
_COMPUTE_OPERATOR = "AzureML Compute Operator"

# No run has this id: an answer that it does not exist shows that reading is allowed.
_NO_RUN = "finetune-readiness"


_LEVELS = {"cannotdelete": "CanNotDelete", "readonly": "ReadOnly"}


class Check(NamedTuple):
    """One thing that was looked at.

    Args:
        what: Its name, in a word or two.
        is_ok: Whether a run can go ahead as far as this was seen.
        said: What was found, in a sentence where it is not ok.
        remedy: What the person at the keyboard can do, where it is not ok.
    """

    what: str
    is_ok: bool
    said: str
    remedy: str | None = None


class Right(NamedTuple):
    """One right that a run needs.

    Args:
        action: Azure's name for it, below ``Microsoft.MachineLearningServices/workspaces/``.
        purpose: What for, to follow "may not".
        role: The built-in role that has it, beside Contributor and Owner.
    """

    action: str
    purpose: str
    role: str = _DATA_SCIENTIST


RIGHTS = (
    Right("onlineEndpoints/delete", "delete the endpoint, which would go on billing"),
    Right("onlineEndpoints/deployments/delete", "delete a failed deployment, which would bill"),
    Right("jobs/cancel/action", "cancel the job"),
    Right("datastores/listSecrets/action", "upload the data"),
    Right("jobs/write", "submit the job"),
    Right("models/versions/write", "register the model"),
    Right("onlineEndpoints/write", "create the endpoint"),
    Right("onlineEndpoints/deployments/write", "deploy the model"),
    Right("onlineEndpoints/listKeys/action", "read the endpoint's key"),
)
"""What every run needs, cleanup first.

Sources: learn.microsoft.com, "Azure permissions for AI + machine learning", for the names; "Manage
access to Azure Machine Learning workspaces" and "Authenticate clients for online endpoints" for who
needs which; "Azure built-in roles for AI + machine learning" for the roles.
"""

CREATE_CLUSTER = Right("computes/write", "create the cluster", _COMPUTE_OPERATOR)
DELETE_CLUSTER = Right("computes/delete", "delete the cluster", _COMPUTE_OPERATOR)


def check_readiness(workspace: WorkspaceResult, rights: Iterable[Right] = RIGHTS) -> list[Check]:
    """Look at locks, rights and the data plane, side by side.

    Args:
        workspace: What :func:`lifecycle.auth.authenticate` found.
        rights: What will be needed.

    Returns:
        What was found, at least one for each look; never an exception.
    """
    ref, needed = workspace.ref, tuple(rights)
    looks: list[Callable[[], list[Check]]] = [
        lambda: _look("locks", _NO_LOCKS, lambda: _locks(ref)),
        lambda: _look("rights", _NO_RIGHTS, lambda: _rights(ref, needed)),
        lambda: _look("run history", _NO_LOGS, lambda: _run_history(ref, workspace.discovery_url)),
        lambda: _look("mlflow", _NO_METRICS, lambda: _mlflow(ref, workspace.mlflow_tracking_uri)),
    ]
    # Aside, that Ctrl-C need not wait for Azure.
    under_way = [aside(look) for look in looks]
    return [check for one in under_way for check in one.result()]


class _Failing(NamedTuple):
    """What is said where a look fails: to follow "while", then what that means, then who may."""

    doing: str
    instead: str
    remedy: str


_NO_LOCKS = _Failing(
    "reading the locks",
    "Whether a lock would keep the endpoint from being deleted is not known.",
    "The role Reader on the resource group lets your identity read them.",
)
_NO_RIGHTS = _Failing(
    "reading the permissions",
    "Whether your identity may do all that a run does is not known.",
    "The role Reader on the resource group lets your identity read them.",
)
_NO_LOGS = _Failing(
    "reading the run history",
    "Logs and progress of the job would be missing.",
    f"Give your identity the role {_DATA_SCIENTIST} on the workspace, or run inside its network.",
)
_NO_METRICS = _Failing(
    "reading MLflow",
    "Metrics of the job would be missing.",
    f"Give your identity the role {_DATA_SCIENTIST} on the workspace, or run inside its network.",
)


def _look(what: str, failing: _Failing, ask: Callable[[], list[Check]]) -> list[Check]:
    try:
        with translated(failing.doing):
            return ask()
    except Exception as error:
        said = f"{what_failed(error, failing.doing)} {failing.instead}"
        return [Check(what, False, said, _remedy(error, failing))]


def _remedy(error: Exception, failing: _Failing) -> str:
    if not isinstance(error, ServiceError):
        return failing.remedy
    lacks_a_role = error.status in {401, 403} and not error.permanent
    return failing.remedy if lacks_a_role else error.remedy


def _locks(ref: WorkspaceRef) -> list[Check]:
    """Return each lock on the workspace, its group or its subscription.

    One list has them all: ``atScope()`` is "at or above". A scope has 20 locks at most, so that the
    list has one page. Sources: Azure/azure-powershell, ``Get-AzResourceLock``; learn.microsoft.com,
    "Azure subscription and service limits".
    """
    answer = get_once(
        ref,
        f"{ref.arm_id}/providers/Microsoft.Authorization/locks",
        {"api-version": _LOCKS_VERSION, "$filter": "atScope()"},
    )
    checks = [_lock(ref, lock) for lock in _listed(answer)]
    found = [check for check in checks if check is not None]
    return found or [Check("locks", True, "nothing keeps the endpoint from being deleted")]


def _lock(ref: WorkspaceRef, lock: dict[str, Any]) -> Check | None:
    properties = lock.get("properties")
    level = properties.get("level") if isinstance(properties, dict) else None
    identity, name = str(lock.get("id")), str(lock.get("name"))
    scope = re.split("(?i)/providers/Microsoft.Authorization/locks/", identity)[0]
    level = _LEVELS.get(str(level).lower())
    if level is None or not _is_at_or_above(scope, ref.arm_id):
        return None
    place = _place(scope)
    would = (
        "keep the endpoint from being deleted: it would bill until somebody removes the lock"
        if level == "CanNotDelete"
        else "keep a run from creating anything, and from deleting what it made before: that would "
        "bill until somebody removes the lock"
    )
    listed = (
        f"--resource-group {ref.resource_group}"
        if "/resourcegroups/" in scope.lower()
        else f"--subscription {ref.subscription_id}"
    )
    return Check(
        "locks",
        False,
        f"A lock on {place} ({name}, {level}) would {would}.",
        f"Find it with `az lock list {listed}`, and delete it with `az lock delete --ids "
        f"{identity}`; or work in a resource group without one.",
    )


def _place(scope: str) -> str:
    kinds = {"workspaces": "the workspace", "resourcegroups": "the resource group"}
    *_, kind, name = scope.split("/")
    return f"{kinds.get(kind.lower(), 'the subscription')} {name}"


def _is_at_or_above(scope: str, resource: str) -> bool:
    return f"{resource}/".lower().startswith(f"{scope}/".lower())


def _rights(ref: WorkspaceRef, needed: Iterable[Right]) -> list[Check]:
    answer = get_once(
        ref,
        f"{ref.arm_id}/providers/Microsoft.Authorization/permissions",
        {"api-version": _PERMISSIONS_VERSION},
    )
    granted = _listed(answer)
    missing = [right for right in needed if not is_allowed(f"{_PROVIDER}{right.action}", granted)]
    if not missing:
        return [Check("rights", True, "your identity may do all that a run and its cleanup do")]
    return [
        Check(
            "rights",
            False,
            "Your identity may not "
            + "; not ".join(f"{one.purpose} ({one.action})" for one in missing if one.role == role)
            + ".",
            f"Give it the role {role} on the workspace, or Contributor.",
        )
        for role in dict.fromkeys(right.role for right in missing)
    ]


def is_allowed(action: str, granted: Iterable[dict[str, Any]]) -> bool:
    """Say whether one of the entries of Azure's list of permissions allows *action*.

    In each, ``notActions`` is taken from ``actions``; what one entry takes, another may give. An
    asterisk is any text. ``computes/*/write`` among the notActions is ``computes/write`` too: so
    AzureML Data Scientist has it, which "can't create or delete compute".

    Source: learn.microsoft.com, "Understand Azure role definitions".
    """
    return any(
        _matches(action, entry.get("actions"))
        and not _matches(action, entry.get("notActions"), with_parent=True)
        for entry in granted
    )


def _matches(action: str, patterns: Any, *, with_parent: bool = False) -> bool:
    if not isinstance(patterns, list):
        return False
    for pattern in patterns:
        expression = re.escape(str(pattern))
        if with_parent:
            expression = expression.replace(r"/\*/", "/(.*/)?")
        if re.fullmatch(expression.replace(r"\*", ".*"), action, re.IGNORECASE):
            return True
    return False


def _run_history(ref: WorkspaceRef, discovery_url: str | None) -> list[Check]:
    """Ask for the details of a run, as the job step does."""
    if discovery_url is None:
        raise ServiceError("The workspace does not say where its data plane is.")
    with translated("asking where the run history is"):
        api = str(get_once(ref, discovery_url)["api"]).rstrip("/")
    _ask_for_no_run(ref, f"{api}/history/v1.0{ref.arm_id}/runs/{_NO_RUN}/details", "error")
    return [Check("run history", True, "can be read")]


def _mlflow(ref: WorkspaceRef, tracking_uri: str | None) -> list[Check]:
    """Ask for a run, as the metrics step does."""
    if tracking_uri is None:
        raise ServiceError("The workspace does not say where its MLflow is.")
    address = tracking_uri.replace("azureml://", "https://", 1)
    url = f"{address}/api/2.0/mlflow/runs/get?run_id={_NO_RUN}"
    _ask_for_no_run(ref, url, "error_code")
    return [Check("mlflow", True, "can be read")]


def _ask_for_no_run(ref: WorkspaceRef, url: str, envelope: str) -> None:
    """Ask for what is not there, and take a 404 for an answer where the service itself gives it.

    Args:
        ref: Says who asks.
        url: Of a run that nobody has.
        envelope: What the service's own errors have at the top; a page of something on the way
            has not.
    """
    from azure.core.exceptions import HttpResponseError

    try:
        get_once(ref, url)
    except HttpResponseError as error:
        if error.status_code != 404 or not _is_json_with(error.response, envelope):
            raise


def _is_json_with(response: Any, name: str) -> bool:
    try:
        body = response.json()
    except ValueError:
        return False
    return isinstance(body, dict) and name in body


def _listed(answer: Any) -> list[dict[str, Any]]:
    """Return the objects of a list of Resource Manager's.

    Raises:
        ValueError: It is no such list.
    """
    listed = answer.get("value") if isinstance(answer, dict) else None
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise ValueError("the answer is no list")
    return listed
