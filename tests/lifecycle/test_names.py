"""Names that Azure accepts, and that two runs never share."""

from __future__ import annotations

import base64
import random
import re
import uuid

import pytest

from lifecycle.names import base32_id, endpoint_name, validate_endpoint_prefix

RUN = "8a4f0c52-3f1e-4a60-9d0e-6f9c3b7a1d24"
AZURE_NAME = re.compile(r"(?=.{3,32}$)[A-Za-z]([A-Za-z0-9]|-(?!-))*[A-Za-z0-9]")


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


def test_a_million_runs_share_no_name() -> None:
    """Runs never collide, even with the longest prefix, which leaves the least of the id."""
    draws = 1_000_000
    random_bits = random.Random(20261121).getrandbits

    tails = {base32_id(f"{random_bits(128):032x}")[-16:] for _ in range(draws)}

    assert draws == len(tails)
    assert "twelve-chars-" + base32_id(RUN)[-16:] + "-a1" == endpoint_name("twelve-chars", RUN, 1)


def test_runs_started_in_the_same_millisecond_share_no_name() -> None:
    """A version 7 id begins with the time; the part used is the random one."""
    first = "01936d2e-7a00-7000-8000-00000000000a"
    second = "01936d2e-7a00-7000-8000-00000000000b"

    assert endpoint_name("twelve-chars", first, 1) != endpoint_name("twelve-chars", second, 1)


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
