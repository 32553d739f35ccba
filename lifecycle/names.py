"""Names in Azure that are derived from the flow run, so that a repeated call meets its own work."""

from __future__ import annotations

import base64
import re
import uuid

ENDPOINT_NAME_LENGTH = 32
ENDPOINT_PREFIX_LENGTH = 12
ENDPOINT_PREFIX_PATTERN = r"^[A-Za-z][A-Za-z0-9]*(-[A-Za-z0-9]+)*$"
_FEWEST_ID_CHARACTERS = 16
_PREFIX = re.compile(ENDPOINT_PREFIX_PATTERN)


def base32_id(flow_run_id: str) -> str:
    """Write a flow run's id in the 26 characters ``a-z2-7``, which every Azure name may hold.

    Args:
        flow_run_id: A UUID in any of the spellings that :class:`uuid.UUID` reads.

    Returns:
        All 128 bits of it, lower case, without padding.

    Raises:
        ValueError: It is not a UUID.
    """
    return base64.b32encode(uuid.UUID(flow_run_id).bytes).decode().rstrip("=").lower()


def endpoint_name(prefix: str, flow_run_id: str, attempt: int) -> str:
    """Name the endpoint of one attempt of one flow run: ``<prefix>-<id>-a<attempt>``.

    The id is as much of the end of :func:`base32_id` as fits, and never less than 16 characters:
    the end, because the front of a version 7 UUID is the time, which two runs can share. From
    the tenth attempt on a long prefix gives way, not the id.

    Args:
        prefix: One that :func:`validate_endpoint_prefix` accepts.
        flow_run_id: The flow run's UUID.
        attempt: The flow run's ``run_count``, from 1.

    Returns:
        At most 32 characters, a letter first; unique in the region for all practical purposes.

    Raises:
        ValueError: The prefix is not valid, the id is no UUID, or the attempt is below 1.
    """
    if attempt < 1:
        raise ValueError(f"An attempt is counted from 1, not {attempt}.")
    suffix = f"-a{attempt}"
    room = ENDPOINT_NAME_LENGTH - len(suffix) - len("-") - _FEWEST_ID_CHARACTERS
    start = validate_endpoint_prefix(prefix)[:room].rstrip("-")
    run = base32_id(flow_run_id)
    fits = ENDPOINT_NAME_LENGTH - len(start) - len("-") - len(suffix)
    return f"{start}-{run[-fits:]}{suffix}"


def validate_endpoint_prefix(prefix: str) -> str:
    """Return the prefix if an endpoint's name can begin with it; a pydantic validator.

    Azure's rule for the whole name is 3–32 characters, a letter first, letters, digits and single
    dashes (https://learn.microsoft.com/azure/machine-learning/how-to-manage-quotas). The run id
    and the attempt need 20 of the 32.

    Raises:
        ValueError: It is empty, longer than 12 characters, or has other characters.
    """
    if len(prefix) <= ENDPOINT_PREFIX_LENGTH and _PREFIX.fullmatch(prefix):
        return prefix
    raise ValueError(
        f"An endpoint's name cannot begin with {prefix!r}: use 1 to {ENDPOINT_PREFIX_LENGTH} "
        "letters, digits and single dashes, a letter first and no dash at the end."
    )
