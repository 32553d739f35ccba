"""An endpoint is tagged at birth, made once however often it is asked for, and fails clearly."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from azure.core.exceptions import ResourceNotFoundError
from azure.core.polling import LROPoller
from pydantic import ValidationError

from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.deletion import delete_endpoint
from lifecycle.endpoint import (
    DeploymentState,
    EndpointRef,
    EndpointSpec,
    EndpointState,
    create_endpoint,
    deploy,
    keep_endpoint,
    plan_endpoint,
    route_traffic,
)
from lifecycle.errors import EndpointError, EndpointUnseen, ServiceError
from lifecycle.leftovers import list_ours
from lifecycle.operation import Change, carry_out
from lifecycle.registration import RegisteredModel

RUN = "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24"
IDENTITY = (
    "/subscriptions/00000000-0000-4000-8000-000000000001/resourceGroups/emulator/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/scorer"
)
ENDPOINT_PUT = {"method": "PUT", "path": "/onlineEndpoints/[^/]+$"}
DEPLOYMENT_PUT = {"method": "PUT", "path": "/deployments/[^/]+$"}
# The SDK tries three times more, at the pace that it is asked for.
EVERY_TRY = [1, 2, 3, 4]
SOON = {"Retry-After": "0.01"}


def sent(emulator: Any, method: str, ending: str) -> list[int]:
    """Statuses of the requests of this method to paths with this ending."""
    return [
        row["status"]
        for row in emulator.requests()
        if row["method"] == method and row["path"].lower().endswith(ending.lower())
    ]


def fault(match: dict[str, str], effect: dict[str, Any], nth: list[int]) -> dict[str, Any]:
    """One fault rule."""
    return {"match": match, "nth": nth, "effect": effect}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name_prefix": "nine-lives-x-"}, "1 to 12 letters"),
        ({"name_prefix": "-x"}, "a letter first"),
        ({"deployment_name": "d"}, "at least 3"),
        ({"deployment_name": "de--mo"}, "pattern"),
        ({"request_timeout_seconds": 181}, "less than or equal to 180"),
        ({"instance_count": 0}, "greater than or equal to 1"),
        ({"identity": "scorer"}, "pattern"),
        ({"expires_after_minutes": 75}, "while it is being deployed"),
        ({"instance_typ": "x"}, "Extra inputs"),
    ],
)
def test_a_wrong_value_is_refused_with_the_rule(values: dict[str, Any], message: str) -> None:
    """Nothing that Azure would reject, or a sweep would kill, gets as far as Azure."""
    with pytest.raises(ValidationError, match=message):
        EndpointSpec.model_validate({"instance_type": "Standard_NC24ads_A100_v4", **values})


def test_the_plan_names_the_attempt_and_its_expiry(
    endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """The name is known before anything is created, and differs by attempt."""
    again = plan_endpoint(endpoint_spec, RUN, 2, endpoint.created_at)

    assert RUN == endpoint.owner
    assert timedelta(minutes=90) == endpoint.expires_at - endpoint.created_at
    assert endpoint.name.startswith("ultrachat-")
    assert endpoint.name != again.name


def test_an_endpoint_is_tagged_by_the_request_that_creates_it(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """There is no moment at which an endpoint of ours exists untagged: one PUT makes it."""
    state = create_endpoint(workspace, endpoint_spec, endpoint)

    assert (endpoint.name, "Succeeded", {}) == (
        state.name,
        state.provisioning_state,
        state.traffic,
    )
    assert (state.scoring_uri or "").startswith("https://")
    assert [201] == sent(emulator, "PUT", endpoint.name)
    made = ml_client(workspace).online_endpoints.get(endpoint.name)
    assert {
        "finetune-owner": RUN,
        "finetune-created-at": "2026-11-21T12:00:00+00:00",
        "finetune-expires-at": "2026-11-21T13:30:00+00:00",
    } == made.tags
    assert "key" == made.auth_mode


def test_a_kept_endpoint_says_so_from_the_moment_that_it_is_kept(
    workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """No sweep deletes what the user keeps; a run that dies before that leaves nothing for ever."""
    create_endpoint(workspace, endpoint_spec.model_copy(update={"keep": True}), endpoint)
    [born] = list_ours(workspace)
    keep_endpoint(workspace, endpoint)
    [kept] = list_ours(workspace)

    assert (endpoint.name, RUN, False) == (born.name, born.owner, born.keep)
    assert born.model_copy(update={"keep": True}) == kept


def test_a_repeated_create_adopts_the_endpoint(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """A retried step does not create a second time."""
    first = create_endpoint(workspace, endpoint_spec, endpoint)
    second = create_endpoint(workspace, endpoint_spec, endpoint)

    assert first == second
    assert 1 == len(sent(emulator, "PUT", endpoint.name))


def test_the_endpoint_of_another_run_is_not_taken_over(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """A name that is taken is an error; the other's endpoint stays as it is."""
    other = endpoint.model_copy(update={"owner": "another run"})
    create_endpoint(workspace, endpoint_spec, other)

    with pytest.raises(EndpointError, match="not this run's"):
        create_endpoint(workspace, endpoint_spec, endpoint)

    assert ["another run"] == [summary.owner for summary in list_ours(workspace)]


def test_a_create_whose_answer_is_lost_is_seen_to_have_worked(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """The endpoint itself is asked, and it is there, tagged."""
    lost = {"status": 503, "after": True, "headers": SOON}
    emulator.faults(fault(ENDPOINT_PUT, lost, EVERY_TRY))

    state = create_endpoint(workspace, endpoint_spec, endpoint)

    assert "Succeeded" == state.provisioning_state
    assert [RUN] == [summary.owner for summary in list_ours(workspace)]


def test_a_create_that_never_arrives_may_be_tried_again(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """The retry policy is told that it passes; the next try succeeds."""
    emulator.faults(fault(ENDPOINT_PUT, {"status": 503, "headers": SOON}, EVERY_TRY))

    with pytest.raises(ServiceError) as outage:
        create_endpoint(workspace, endpoint_spec, endpoint)

    assert True is outage.value.transient
    assert "Succeeded" == create_endpoint(workspace, endpoint_spec, endpoint).provisioning_state


def test_a_create_that_azure_refuses_is_an_error_with_its_reason(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """A refusal is not tried again."""
    body = '{"error": {"code": "BadArgument", "message": "The name is reserved."}}'
    emulator.faults(fault(ENDPOINT_PUT, {"status": 400, "body": body}, [1]))

    with pytest.raises(EndpointError, match="BadArgument: The name is reserved") as refusal:
        create_endpoint(workspace, endpoint_spec, endpoint)

    assert (False, endpoint.name) == (refusal.value.transient, refusal.value.where)
    assert [400] == sent(emulator, "PUT", endpoint.name)


def test_a_create_that_azure_accepts_and_fails_is_an_error_with_its_reason(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """The operation's own error is told, though each of its answers was a 200."""
    failed = {"operation_error": {"code": "SubnetFull", "message": "No address is left."}}
    emulator.faults(fault(ENDPOINT_PUT, failed, [1]))

    with pytest.raises(EndpointError, match=r"SubnetFull.*No address is left"):
        create_endpoint(workspace, endpoint_spec, endpoint)


def test_an_endpoint_that_is_not_found_yet_is_waited_for(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """Azure has made it, and its own next answers are 404."""
    emulator.faults(fault(ENDPOINT_PUT, {"hidden": 2}, [1]))

    state = create_endpoint(workspace, endpoint_spec, endpoint)

    assert ("Succeeded", 1) == (
        state.provisioning_state,
        len(sent(emulator, "PUT", endpoint.name)),
    )


def test_what_is_never_found_is_an_error(clock: Any) -> None:
    """Whoever cleans up must not believe the next 404 either."""

    class Poller(LROPoller[Any]):
        def __init__(self) -> None:
            """Have nothing to poll: Azure has agreed, and knows nothing of it."""

        def done(self) -> bool:
            return True

        def result(self, timeout: float | None = None) -> Any:
            error = ResourceNotFoundError("It is not there.")
            error.status_code = 404
            raise error

    change = Change("creating the endpoint x", "x", Poller, lambda: None, lambda entity: True)

    with pytest.raises(EndpointUnseen, match="60 seconds later there is no such"):
        carry_out(change, deadline_seconds=900, clock=clock)

    assert 60 <= clock.monotonic() <= 65


def test_an_endpoint_that_failed_is_created_again(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """What is adopted is a live endpoint, never a failed one."""
    failed = {"operation_error": {"code": "SubnetFull", "message": "No address is left."}}
    emulator.faults(fault(ENDPOINT_PUT, failed, [1]))
    with pytest.raises(EndpointError):
        create_endpoint(workspace, endpoint_spec, endpoint)

    assert "Succeeded" == create_endpoint(workspace, endpoint_spec, endpoint).provisioning_state


def test_a_poll_that_fails_does_not_fail_the_endpoint(
    emulator: Any, workspace: WorkspaceRef, endpoint: EndpointRef, endpoint_spec: EndpointSpec
) -> None:
    """An outage while Azure works is waited out: the resource's state decides."""
    poll = {"method": "GET", "path": "/mfeOperationsStatus/"}
    emulator.faults(fault(poll, {"status": 503, "headers": SOON}, EVERY_TRY))

    assert "Succeeded" == create_endpoint(workspace, endpoint_spec, endpoint).provisioning_state


def test_an_endpoint_that_is_not_up_in_time_is_an_error(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    endpoint: EndpointRef,
    endpoint_spec: EndpointSpec,
    clock: Any,
) -> None:
    """The deadline is ours, since the SDK's poller has none."""
    spec = endpoint_spec.model_copy(update={"create_deadline_minutes": 0.1})

    with pytest.raises(EndpointError, match=r"Not finished within 0\.1 minutes: creating"):
        create_endpoint(slow_workspace, spec, endpoint, clock=clock)

    assert 1 == len(sent(slow_emulator, "PUT", endpoint.name))


def test_an_endpoint_under_way_is_waited_for(
    slow_emulator: Any,
    slow_workspace: WorkspaceRef,
    endpoint: EndpointRef,
    endpoint_spec: EndpointSpec,
    clock: Any,
) -> None:
    """A step that is repeated while Azure still creates waits for the same endpoint."""
    hurried = endpoint_spec.model_copy(update={"create_deadline_minutes": 0.1})
    with pytest.raises(EndpointError):
        create_endpoint(slow_workspace, hurried, endpoint, clock=clock)

    state = create_endpoint(slow_workspace, endpoint_spec, endpoint, clock=clock)

    assert "Succeeded" == state.provisioning_state
    assert 1 == len(sent(slow_emulator, "PUT", endpoint.name))


def test_a_user_assigned_identity_is_the_endpoints(
    workspace: WorkspaceRef, endpoint: EndpointRef
) -> None:
    """The deployment runs under the identity that was asked for."""
    spec = EndpointSpec(instance_type="Standard_NC24ads_A100_v4", identity=IDENTITY)

    create_endpoint(workspace, spec, endpoint)

    identity = ml_client(workspace).online_endpoints.get(endpoint.name).identity
    assert "user_assigned" == identity.type
    assert [IDENTITY] == [each.resource_id for each in identity.user_assigned_identities]


def test_a_deployment_is_as_asked(
    emulator: Any,
    workspace: WorkspaceRef,
    endpoint: EndpointRef,
    model: RegisteredModel,
    endpoint_spec: EndpointSpec,
) -> None:
    """Size, instances, probe and timeout reach Azure; what serves is the registered model."""
    create_endpoint(workspace, endpoint_spec, endpoint)

    state = deploy(workspace, endpoint_spec, endpoint, model)

    assert (
        DeploymentState(
            endpoint_name=endpoint.name,
            name="demo",
            provisioning_state="Succeeded",
            model=model.id,
            instance_type="Standard_NC24ads_A100_v4",
            instance_count=1,
        )
        == state
    )
    made = ml_client(workspace).online_deployments.get("demo", endpoint.name)
    assert (600, 90000) == (
        made.liveness_probe.initial_delay,
        made.request_settings.request_timeout_ms,
    )


def test_a_repeated_deploy_adopts_the_deployment(
    emulator: Any,
    workspace: WorkspaceRef,
    endpoint: EndpointRef,
    model: RegisteredModel,
    endpoint_spec: EndpointSpec,
) -> None:
    """A retried step does not deploy a second time."""
    create_endpoint(workspace, endpoint_spec, endpoint)
    first = deploy(workspace, endpoint_spec, endpoint, model)

    assert first == deploy(workspace, endpoint_spec, endpoint, model)
    assert 1 == len(sent(emulator, "PUT", "/deployments/demo"))


def test_a_failed_deployment_is_an_error_with_the_tail_of_its_log(
    emulator: Any,
    workspace: WorkspaceRef,
    endpoint: EndpointRef,
    model: RegisteredModel,
    endpoint_spec: EndpointSpec,
) -> None:
    """The person sees why, and the deployment, which is billed, goes with its endpoint."""
    create_endpoint(workspace, endpoint_spec, endpoint)
    crash = {"operation_error": {"code": "ResourceNotReady", "message": "The container crashed."}}
    emulator.faults(fault(DEPLOYMENT_PUT, crash, [1]))

    with pytest.raises(EndpointError) as failure:
        deploy(workspace, endpoint_spec, endpoint, model)

    assert "ResourceNotReady: The container crashed." in failure.value.message
    assert "Its log ends:\n" in failure.value.message
    assert f"{endpoint.name}/demo" == failure.value.where
    delete_endpoint(workspace, endpoint.name)
    assert 0 == emulator.ledger()["open"]


def test_a_deployment_refused_for_quota_says_what_to_do(
    emulator: Any,
    workspace: WorkspaceRef,
    endpoint: EndpointRef,
    model: RegisteredModel,
    endpoint_spec: EndpointSpec,
) -> None:
    """Quota is not a fault of the model; there is no log, and that is said."""
    create_endpoint(workspace, endpoint_spec, endpoint)
    body = '{"error": {"code": "OutOfQuota", "message": "Not enough quota."}}'
    emulator.faults(fault(DEPLOYMENT_PUT, {"status": 400, "body": body}, [1]))

    with pytest.raises(EndpointError, match=r"OutOfQuota(.|\n)*could not be read") as refusal:
        deploy(workspace, endpoint_spec, endpoint, model)

    assert "Ask for quota" in refusal.value.remedy


def test_traffic_is_routed_and_tags_set_meanwhile_are_kept(
    workspace: WorkspaceRef,
    endpoint: EndpointRef,
    model: RegisteredModel,
    endpoint_spec: EndpointSpec,
) -> None:
    """A user who protects the endpoint while it is being deployed is not overruled."""
    create_endpoint(workspace, endpoint_spec, endpoint)
    deploy(workspace, endpoint_spec, endpoint, model)
    client = ml_client(workspace)
    found = client.online_endpoints.get(endpoint.name)
    found.tags["finetune-keep"] = "true"
    client.online_endpoints.begin_create_or_update(found).result()

    state = route_traffic(workspace, endpoint, {"demo": 100})

    assert isinstance(state, EndpointState)
    assert {"demo": 100} == state.traffic
    assert [(RUN, True)] == [(each.owner, each.keep) for each in list_ours(workspace)]


def test_traffic_whose_answer_is_lost_is_not_believed_routed(
    emulator: Any,
    workspace: WorkspaceRef,
    endpoint: EndpointRef,
    model: RegisteredModel,
    endpoint_spec: EndpointSpec,
) -> None:
    """An endpoint that is up, with the old traffic, does not pass for the new one."""
    create_endpoint(workspace, endpoint_spec, endpoint)
    deploy(workspace, endpoint_spec, endpoint, model)
    emulator.faults(fault(ENDPOINT_PUT, {"status": 503, "headers": SOON}, EVERY_TRY))

    with pytest.raises(ServiceError) as outage:
        route_traffic(workspace, endpoint, {"demo": 100})

    assert True is outage.value.transient
    assert {"demo": 100} == route_traffic(workspace, endpoint, {"demo": 100}).traffic


def test_traffic_of_an_endpoint_that_is_gone_is_an_error(
    workspace: WorkspaceRef, endpoint: EndpointRef
) -> None:
    """A PUT for traffic never creates an endpoint anew."""
    with pytest.raises(EndpointError, match="no longer there"):
        route_traffic(workspace, endpoint, {"demo": 100})
