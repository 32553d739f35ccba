"""Names that Azure accepts, and that two runs never share."""

from __future__ import annotations

import base64
import random
import re
import uuid
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifecycle.job import job_name
from lifecycle.names import base32_id, endpoint_name, validate_endpoint_prefix

RUN = "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24"
AZURE_NAME = re.compile(r"(?=.{3,32}$)[A-Za-z]([A-Za-z0-9]|-(?!-))*[A-Za-z0-9]")
AZURE_JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")


def test_base32_id_keeps_all_the_bits() -> None:
    """The id can be read back from the name, so no two runs share one."""
    written = base32_id(RUN)

    assert 26 == len(written)
    assert re.fullmatch("[a-z2-7]{26}", written)
    assert uuid.UUID(RUN).bytes == base64.b32decode(written.upper() + "======")


def test_base32_id_refuses_what_is_no_uuid() -> None:
    """A name is never derived from something that two runs could share."""
    with pytest.raises(ValueError, match="UUID"):
        base32_id("my-run")


@pytest.mark.parametrize("prefix", ["u", "ultrachat", "ultra-chat", "twelve-chars"])
@pytest.mark.parametrize("attempt", [1, 2, 9, 10, 99, 100])
def test_endpoint_name_is_one_that_azure_accepts(prefix: str, attempt: int) -> None:
    """Any prefix and any attempt make a name within Azure's rule, 16 characters of id in it."""
    name = endpoint_name(prefix, RUN, attempt)

    assert AZURE_NAME.fullmatch(name), name
    assert name.endswith(f"-a{attempt}")
    run = name.removesuffix(f"-a{attempt}").rpartition("-")[2]
    assert base32_id(RUN).endswith(run)
    assert 16 <= len(run)


def test_endpoint_name_uses_all_the_room() -> None:
    """As many characters of the id as fit are used."""
    assert 32 == len(endpoint_name("ultrachat", RUN, 1))
    assert "u-" + base32_id(RUN) + "-a1" == endpoint_name("u", RUN, 1)


def test_attempts_of_a_run_have_names_of_their_own() -> None:
    """A retry never falls over a name that Azure has not freed yet."""
    names = {endpoint_name("twelve-chars", RUN, attempt) for attempt in range(1, 121)}

    assert 120 == len(names)


def test_a_repeated_call_gives_the_same_name() -> None:
    """A repeated create within an attempt meets the endpoint of the first."""
    assert endpoint_name("ultrachat", RUN, 1) == endpoint_name("ultrachat", RUN.upper(), 1)


@settings(max_examples=200, deadline=None, database=None)
@given(
    run=st.uuids(),
    other=st.uuids(),
    prefix=st.from_regex(r"[A-Za-z](-?[A-Za-z0-9]){0,5}[A-Za-z0-9]?", fullmatch=True),
    attempt=st.integers(1, 9999),
)
def test_names_of_any_run_obey_azures_rules(
    run: uuid.UUID, other: uuid.UUID, prefix: str, attempt: int
) -> None:
    """Endpoint and job, however the id is written; another run's differ."""
    for make, rule in ((partial(endpoint_name, prefix), AZURE_NAME), (job_name, AZURE_JOB_NAME)):
        name = make(str(run), attempt)

        assert rule.fullmatch(name), name
        assert name == make(run.hex.upper(), attempt)
        assert run == other or name != make(str(other), attempt)


@pytest.mark.parametrize("draws", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", ["random", "of one millisecond"])
def test_runs_share_no_name(kind: str, draws: int) -> None:
    """Not even with the longest prefix, which leaves the least of the id.

    Prefect's ids are random (version 4), or begin with the time (version 7): then only 74 bits
    tell the runs of one millisecond apart.
    """
    random_bits = random.Random(20261121).getrandbits
    head, version, bits = (0, 4, 122) if kind == "random" else (0x01936D2E7A00 << 80, 7, 74)

    names = {
        endpoint_name("twelve-chars", f"{_uuid(head, version, random_bits(bits)):032x}", 1)
        for _ in range(draws)
    }

    assert draws == len(names)


def _uuid(head: int, version: int, bits: int) -> int:
    """Put the bits where an id of this version has them: around version and variant."""
    low, middle, high = bits & (1 << 62) - 1, bits >> 62 & 0xFFF, bits >> 74
    return head | high << 80 | version << 76 | middle << 64 | 0b10 << 62 | low


@pytest.mark.parametrize("prefix", ["a", "Ultra", "a-b", "a1-2b", "twelve-chars"])
def test_good_prefixes_are_kept_as_they_are(prefix: str) -> None:
    """What Azure accepts is not changed behind the user's back."""
    assert prefix == validate_endpoint_prefix(prefix)


@pytest.mark.parametrize(
    "prefix",
    ["", "9lives", "-a", "a-", "a--b", "under_score", "dot.ted", "thirteen-char", "ünïcode", "a\n"],
)
def test_bad_prefixes_are_refused_with_the_rule(prefix: str) -> None:
    """A bad prefix is refused before anything is created, and the message says what is allowed."""
    with pytest.raises(ValueError, match="1 to 12 letters, digits and single dashes") as refusal:
        validate_endpoint_prefix(prefix)

    assert repr(prefix) in str(refusal.value)


def test_attempts_are_counted_from_one() -> None:
    """An attempt of 0 is a caller's mistake, not a name."""
    with pytest.raises(ValueError, match="counted from 1"):
        endpoint_name("ultrachat", RUN, 0)
