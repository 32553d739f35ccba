"""Notification blocks are saved from the environment; what setup is to use, Prefect keeps."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import CustomWebhookNotificationBlock, SlackWebhook

from deployments.blocks import TYPES, main, save_block
from deployments.notifications import check_blocks
from deployments.variables import NOTIFY, WORKSPACE, notified, with_workspace
from lifecycle.errors import ConfigurationError

ADDRESS = "https://hooks.slack.com/services/A/B/s3cret"
NAMES = {"subscription_id": "s", "resource_group": "g", "name": "w"}
SENDGRID = {"api_key": "SG.s3cret", "sender_email": "a@example.com", "to_emails": ["b@example.com"]}


def test_a_block_is_saved_from_the_environment_and_again(
    prefect_server: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is there for --notify; saved again its address is the new one, and none is printed."""
    for address in (ADDRESS, f"{ADDRESS}2"):
        monkeypatch.setenv("TEAM_ADDRESS", address)
        assert 0 == main(["slack-webhook/saved", "--from", "TEAM_ADDRESS"])

    check_blocks(["slack-webhook/saved"])
    saved = SlackWebhook.load("saved")
    assert isinstance(saved, SlackWebhook)
    assert f"{ADDRESS}2" == saved.url.get_secret_value()
    said = capsys.readouterr()
    assert "--notify slack-webhook/saved" in said.out
    assert "s3cret" not in said.out + said.err


def test_a_webhooks_address_is_among_its_secrets(prefect_server: str) -> None:
    """Of that type the server would show an address; the message is sent there all the same."""
    save_block("custom-webhook/saved", "AT", {"AT": "http://127.0.0.1:9/s3cret"})

    saved = CustomWebhookNotificationBlock.load("saved")
    assert isinstance(saved, CustomWebhookNotificationBlock)
    assert "s3cret" not in saved.model_dump_json()
    sent = saved._build_request_args("what happened", "Failed: a run")
    assert "http://127.0.0.1:9/s3cret" == sent["url"]
    assert {"subject": "Failed: a run", "body": "what happened"} == sent["json"]


def test_what_is_more_than_an_address_is_an_object(prefect_server: str) -> None:
    """E-mail takes a key, who sends, and who is told."""
    save_block("sendgrid-email/saved", "MAIL", {"MAIL": json.dumps(SENDGRID)})

    check_blocks(["sendgrid-email/saved"])


def test_the_types_are_prefects() -> None:
    """Each can notify, and is named as Prefect names it."""
    assert {"slack-webhook", "ms-teams-webhook", "custom-webhook", "sendgrid-email"} <= set(TYPES)
    assert [] == [name for name, kind in TYPES.items() if not issubclass(kind, NotificationBlock)]


@pytest.mark.parametrize(
    ("block", "value", "said"),
    [
        ("slack-webhook", ADDRESS, "is named TYPE/NAME"),
        ("slak-webhook/team", ADDRESS, "The types are slack-webhook, "),
        ("slack-webhook/team", "", "--from AT: the environment variable is not set"),
        ("slack-webhook/The Team", ADDRESS, "name: "),
        ("sendgrid-email/team", "s3cret", "api_key: Field required"),
        ("sendgrid-email/team", '{"api_key": "s3cret"}', "sender_email: Field required"),
        ("sendgrid-email/team", '{"api_key": "s3cret"', "begins like a JSON object"),
        ("ms-teams-webhook/team", "https://example.com/s3cret", "do not take such a value"),
    ],
    ids=["name", "type", "unset", "name-of-block", "address", "fields", "json", "teams"],
)
def test_a_wrong_block_is_refused(prefect_server: str, block: str, value: str, said: str) -> None:
    """In a sentence that says what is asked for, and does not repeat the secret."""
    with pytest.raises(ConfigurationError, match=re.escape(said)) as refused:
        save_block(block, "AT", {"AT": value})

    assert "s3cret" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_prefect_names_the_workspace_where_nothing_else_does(deployed: Any) -> None:
    """An option and the environment win; what is beside the names is kept."""
    given = {"workspace": {"registry": "ours"}}
    set_variable(deployed, WORKSPACE, NAMES)

    assert {"workspace": {"registry": "ours", **NAMES}} == with_workspace(given, {})
    assert {"workspace": {"name": "x"}} == with_workspace({"workspace": {"name": "x"}}, {})
    assert given == with_workspace(given, {"AZUREML_ARM_WORKSPACE_NAME": "x"})

    deployed.delete_variable_by_name(WORKSPACE)
    assert given == with_workspace(given, {})


def test_prefect_names_who_is_told(deployed: Any) -> None:
    """As a list; nobody where there is none."""
    assert [] == notified()
    set_variable(deployed, NOTIFY, ["slack-webhook/team"])
    assert ["slack-webhook/team"] == notified()
    deployed.delete_variable_by_name(NOTIFY)


@pytest.mark.parametrize("value", ["w", {"name": "w"}, {**NAMES, "name": ""}], ids=str)
def test_a_variable_that_names_no_workspace_is_refused(deployed: Any, value: Any) -> None:
    """With its name, and with what it should hold."""
    set_variable(deployed, WORKSPACE, value)
    with pytest.raises(ConfigurationError, match=r"finetune_workspace: .*resource_group"):
        with_workspace({}, {})
    deployed.delete_variable_by_name(WORKSPACE)


@pytest.mark.parametrize("value", ["slack-webhook/team", [1]], ids=str)
def test_a_variable_that_names_no_blocks_is_refused(deployed: Any, value: Any) -> None:
    """With its name, and with an example."""
    set_variable(deployed, NOTIFY, value)
    with pytest.raises(ConfigurationError, match=r"finetune_notify: .*slack-webhook/team"):
        notified()
    deployed.delete_variable_by_name(NOTIFY)


def set_variable(client: Any, name: str, value: Any) -> None:
    """Put a value on the server, as `prefect variable set` does."""
    from prefect.client.schemas.actions import VariableCreate

    client.create_variable(VariableCreate(name=name, value=value))
