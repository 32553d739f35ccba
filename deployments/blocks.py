"""``python -m deployments.blocks slack-webhook/team --from NAME``: save a notification block.

The address is read from the environment variable NAME, and is no argument: those can be seen by
whoever lists processes. Where the type of the block wants more than an address, the variable holds
a JSON object of its fields. A block of that name is overwritten. PREFECT_API_URL says on which
server. Exit codes: 0 saved; 1 Prefect did not answer; 2 refused.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock,
    DiscordWebhook,
    MattermostWebhook,
    MicrosoftTeamsWebhook,
    OpsgenieWebhook,
    PagerDutyWebHook,
    SendgridEmail,
    SlackWebhook,
    TwilioSMS,
)
from pydantic import ValidationError

from lifecycle.errors import ConfigurationError

from .command import exit_code

TYPES: dict[str, type[NotificationBlock]] = {
    kind.get_block_type_slug(): kind
    for kind in (
        SlackWebhook,
        MicrosoftTeamsWebhook,
        CustomWebhookNotificationBlock,
        SendgridEmail,
        MattermostWebhook,
        DiscordWebhook,
        PagerDutyWebHook,
        OpsgenieWebhook,
        TwilioSMS,
    )
}
"""Those of Prefect's blocks that can notify, by the first half of their names."""


def main(arguments: list[str] | None = None) -> int:
    """Save the block, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deployments.blocks", description=__doc__)
    parser.add_argument("block", metavar="TYPE/NAME", help=f"TYPE: {', '.join(TYPES)}")
    parser.add_argument(
        "--from", required=True, metavar="NAME", dest="variable", help="an environment variable"
    )
    chosen = parser.parse_args(arguments)

    def save() -> None:
        save_block(chosen.block, chosen.variable)
        print(f"Saved {chosen.block}: python -m deployments.setup --notify {chosen.block}")

    return exit_code("blocks", save)


def save_block(block: str, variable: str, environ: Mapping[str, str] = os.environ) -> None:
    """Save a notification block, in the place of one of the same name.

    Args:
        block: Its name, as ``slack-webhook/team``.
        variable: The environment variable that holds the address, or a JSON object of its fields.
        environ: Where that is looked up.

    Raises:
        ConfigurationError: There is no such type, the variable is not set, or the type does not
            take what it holds; which is not repeated.
    """
    slug, _, name = block.partition("/")
    kind = TYPES.get(slug)
    if kind is None or not name:
        raise ConfigurationError(
            "a block is named TYPE/NAME, for example slack-webhook/team.",
            where=block,
            remedy=f"The types are {', '.join(TYPES)}.",
        )
    text = environ.get(variable, "").strip()
    if not text:
        raise ConfigurationError("the environment variable is not set.", where=f"--from {variable}")
    try:
        # Where it cannot be saved, too: the name may be none.
        kind(**_fields(kind, text, variable)).save(name, overwrite=True)
    except (ValueError, KeyError) as error:
        # Without the cause: its text may have what was given.
        raise ConfigurationError(_said(error), where=f"{block} --from {variable}") from None


def _said(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "blocks of this type do not take such a value."
    problems = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in problems) + "."


def _fields(kind: type[NotificationBlock], text: str, variable: str) -> dict[str, Any]:
    if text.startswith("{"):
        try:
            fields: dict[str, Any] = json.loads(text)
        except ValueError:
            raise ConfigurationError(
                "it begins like a JSON object and is none.", where=f"--from {variable}"
            ) from None
        return fields
    if kind is CustomWebhookNotificationBlock:
        # Of this type the secrets are encrypted, and the address is not.
        return {
            "name": "finetune",
            "url": "{{address}}",
            "secrets": {"address": text},
            "json_data": {"subject": "{{subject}}", "body": "{{body}}"},
        }
    return {"url": text}


if __name__ == "__main__":
    sys.exit(main())
