"""Who is told, of what: through Prefect's blocks, to a webhook that listens here."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from prefect import flow
from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock,
    MicrosoftTeamsWebhook,
    SendgridEmail,
    SlackWebhook,
)
from prefect.flow_engine import run_flow
from prefect.states import Completed, Failed, Running

from deployments.definitions import ON_DEMAND
from deployments.notifications import FAILED, LEFT, SUCCEEDED, ensure_notifications
from lifecycle.errors import ConfigurationError
from tasks.runs import tell_still_billing


class Receiver:
    """A webhook on loopback that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[dict[str, str]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.messages.append(json.loads(body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *words: Any) -> None:
                """Say nothing."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def await_message(self, word: str) -> dict[str, str]:
        """Wait for a message with this word in it."""
        end = time.monotonic() + 30
        while True:
            for message in self.messages:
                if word in json.dumps(message):
                    return message
            assert time.monotonic() < end, f"{word!r} is not in {self.messages}"
            time.sleep(0.2)


@pytest.fixture(scope="module")
def receiver(deployed: Any) -> Iterator[Receiver]:
    """A webhook block that leads here, told of everything."""
    receiver = Receiver()
    block = CustomWebhookNotificationBlock(
        name="here", url=receiver.url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    block.save("here")
    made = ensure_notifications(["custom-webhook/here"], on_success=True)
    # The server loads an automation a moment after it is made.
    time.sleep(2)
    assert ([FAILED, LEFT, SUCCEEDED], []) == made
    yield receiver
    receiver.server.shutdown()


def test_a_failure_is_told(deployed: Any, receiver: Receiver) -> None:
    """With the run, the deployment, what went wrong, and where to read on."""
    run = _run(deployed)
    deployed.set_flow_run_state(run, Failed(message="JobFailed: no memory"), force=True)

    message = receiver.await_message("no memory")

    assert message["subject"].startswith("Failed: ")
    assert message["subject"].endswith(" of finetune-on-demand")
    assert f"/runs/flow-run/{run}" in message["body"]


def test_what_may_still_be_billing_is_told(deployed: Any, receiver: Receiver) -> None:
    """Whether the run ended well or badly: the event comes from the run itself."""

    @flow(name="finetune-chat-model")
    def leaves_something(  # The parameters of the deployment's runs.
        model: Any, compute: Any, dataset: Any, training: Any, endpoint: Any, evaluation: Any
    ) -> None:
        tell_still_billing(["onlineEndpoints/chats-a1"])

    deployment = deployed.read_deployment_by_name(ON_DEMAND)
    created = deployed.create_flow_run_from_deployment(deployment.id)

    run_flow(leaves_something, flow_run=created)

    message = receiver.await_message("chats-a1")
    assert message["subject"].startswith("MAY STILL BE BILLING: ")
    assert "finetune sweep --apply" in message["body"]


def test_trouble_of_a_hook_is_told_too(deployed: Any, receiver: Receiver) -> None:
    """It is in no run: the run is dead, and what it left could not be seen gone."""
    dead = deployed.read_flow_run(_run(deployed))

    tell_still_billing(["onlineEndpoints/chats-a2"], dead)

    message = receiver.await_message("chats-a2")
    assert message["subject"].startswith("MAY STILL BE BILLING: ")
    assert f"/runs/flow-run/{dead.id}" in message["body"]


def test_a_success_is_told_where_it_was_asked_for(deployed: Any, receiver: Receiver) -> None:
    """And no more, once it is not asked for."""
    run = _run(deployed)
    deployed.set_flow_run_state(run, Completed(), force=True)

    assert receiver.await_message(str(run))["subject"].startswith("Completed: ")

    assert ([FAILED, LEFT], [SUCCEEDED]) == ensure_notifications(["custom-webhook/here"])
    assert [] == deployed.read_automations_by_name(SUCCEEDED)


def test_a_block_that_is_not_there_is_refused(deployed: Any) -> None:
    """Before anything is made; the sentence says how a block is named."""
    with pytest.raises(ConfigurationError, match=r"to notify, slack-webhook/nobody: .* TYPE/NAME"):
        ensure_notifications(["slack-webhook/nobody"])


@pytest.mark.parametrize(
    ("block", "kind"),
    [
        (SlackWebhook(url="https://hooks.slack.com/services/A/B/C"), "slack-webhook"),
        (
            MicrosoftTeamsWebhook(
                url="https://prod-1.westus.logic.azure.com:443/workflows/0123456789abcdef0123456789"
                "abcdef/triggers/manual/paths/invoke?sig=abcdefghijklmnopqrstuvwxyz0123456789-_ab"
            ),
            "ms-teams-webhook",
        ),
        (
            SendgridEmail(
                api_key="SG.key", sender_email="a@example.com", to_emails=["b@example.com"]
            ),
            "sendgrid-email",
        ),
    ],
    ids=["slack", "teams", "e-mail"],
)
def test_the_other_ways_are_blocks_of_prefect_too(deployed: Any, block: Any, kind: str) -> None:
    """Each may stand behind --notify; nothing is sent. What ends is named."""
    name = f"test-{uuid.uuid4()}"
    block.save(name)

    assert ([FAILED, LEFT], []) == ensure_notifications([f"{kind}/{name}"])

    assert ([], [FAILED, LEFT]) == ensure_notifications([])


def _run(client: Any) -> uuid.UUID:
    deployment = client.read_deployment_by_name(ON_DEMAND)
    run = client.create_flow_run_from_deployment(deployment.id, state=Running())
    return uuid.UUID(str(run.id))
