"""Who is told when a run ends badly: automations that send through Prefect's notification blocks.

The blocks are the user's: made in the UI, or by ``Block.save``, where their addresses and tokens
are kept. Any that can notify will do: Slack, Microsoft Teams, e-mail through SendGrid, a webhook.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple
from uuid import UUID

from prefect import get_client
from prefect.automations import AutomationCore
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import ActionTypes, SendNotification
from prefect.exceptions import ObjectNotFound

from lifecycle.errors import ConfigurationError
from tasks.runs import STILL_BILLING

from .automations import on_event, on_states, put_automation, take_automation_away
from .definitions import FINETUNE, HELPERS

FAILED = "finetune: tell that a run has failed"
LEFT = "finetune: tell that something may still be billing"
SUCCEEDED = "finetune: tell that a run has succeeded"

_RUN = "{{ flow_run.name }} of {{ deployment.name }}"
_LINK = "{{ flow_run|ui_url }}"


class Notifications(NamedTuple):
    """The names of the automations that were made, and of those that were taken away."""

    made: list[str]
    removed: list[str]


def ensure_notifications(
    blocks: Iterable[str],
    *,
    on_success: bool = False,
    finetune: Iterable[str] = FINETUNE,
    helpers: Iterable[str] = HELPERS,
) -> Notifications:
    """Have these blocks told of failures and of what may still be billing.

    What was made before and is not asked for now is taken away.

    Args:
        blocks: Notification blocks, as ``slack-webhook/team``; none ends all notifications.
        on_success: Whether to tell of runs that succeeded, too.
        finetune: The deployments whose runs are told of.
        helpers: Further deployments whose failures are told of.

    Raises:
        ConfigurationError: There is no such block.
    """
    with get_client(sync_client=True) as client:
        told = _found(client, blocks)
        trained = [client.read_deployment_by_name(name).id for name in finetune]
        helping = [client.read_deployment_by_name(name).id for name in helpers]
        wanted = [
            AutomationCore(
                name=FAILED,
                trigger=on_states(["Failed", "Crashed", "TimedOut"], [*trained, *helping]),
                actions=_tell(
                    told, f"{{{{ flow_run.state.name }}}}: {_RUN}", "{{ flow_run.state.message }}"
                ),
            ),
            AutomationCore(
                name=LEFT,
                trigger=on_event(STILL_BILLING, [*trained, *helping]),
                actions=_tell(
                    told,
                    f"MAY STILL BE BILLING: {_RUN}",
                    "{{ event.payload.resources | join(', ') }}. `finetune sweep --apply` "
                    "deletes what has outlived its run.",
                ),
            ),
            AutomationCore(
                name=SUCCEEDED,
                trigger=on_states(["Completed"], trained),
                actions=_tell(told, f"Completed: {_RUN}", "Its report is among its artifacts."),
            ),
        ]
        made, removed = [], []
        for automation in wanted:
            if told and (on_success or automation.name != SUCCEEDED):
                put_automation(client, automation)
                made.append(automation.name)
            elif take_automation_away(client, automation.name):
                removed.append(automation.name)
    return Notifications(made, removed)


def check_blocks(blocks: Iterable[str]) -> None:
    """Look whether these blocks are there, before anything is written; errors as above."""
    with get_client(sync_client=True) as client:
        _found(client, blocks)


def _found(client: SyncPrefectClient, blocks: Iterable[str]) -> list[UUID]:
    return [_block(client, name) for name in blocks]


def _block(client: SyncPrefectClient, name: str) -> UUID:
    kind, _, document = name.partition("/")
    try:
        found = client.read_block_document_by_name(document, kind)
    except ObjectNotFound as error:
        raise ConfigurationError(
            "there is no such block.",
            where=f"the block to notify, {name}",
            remedy="Make it by `python -m deployments.blocks` or in Prefect's UI under Blocks, and "
            "name it as TYPE/NAME, for example slack-webhook/team.",
        ) from error
    return found.id


def _tell(blocks: Iterable[UUID], subject: str, body: str) -> list[ActionTypes]:
    return [
        SendNotification(block_document_id=one, subject=subject, body=f"{body}\n{_LINK}")
        for one in blocks
    ]
