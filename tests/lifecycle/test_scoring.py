"""One held-out conversation goes out as the tutorial sends it; a reply or a clear error comes."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lifecycle.clients import WorkspaceRef, ml_client
from lifecycle.endpoint import (
    EndpointRef,
    EndpointSpec,
    create_endpoint,
    deploy,
    plan_endpoint,
    route_traffic,
)
from lifecycle.errors import DatasetError, ScoringError, ServiceError
from lifecycle.registration import RegisteredModel
from lifecycle.scoring import (
    Message,
    build_request,
    connection,
    extract_reply,
    invoke,
    pick_conversations,
)


def turns(*contents: str, system: str | None = None) -> list[dict[str, str]]:
    """Messages by user and assistant in turn, after a system message if there is one."""
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [
        {"role": ("user", "assistant")[i % 2], "content": content}
        for i, content in enumerate(contents)
    ]


def write_rows(file: Path, *rows: Any) -> Path:
    """Write JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_conversations_are_picked_from_parquet_as_from_json_lines(tmp_path: Path) -> None:
    """Whatever the data step writes, what is asked is the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"messages": turns(f"{n}?", f"{n}.")} for n in range(50)]
    lines = write_rows(tmp_path / "held_out.jsonl", *rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "held_out.parquet", row_group_size=7)

    picked = [
        pick_conversations(tmp_path / f"held_out.{form}", 5, 3) for form in ("jsonl", "parquet")
    ]

    assert lines.exists()
    assert picked[0] == picked[1]


def test_the_request_is_the_tutorials() -> None:
    """A model that answered the tutorial answers us."""
    request = build_request([Message(role="user", content="Hello?")])

    assert {
        "input_data": {
            "input_string": [[{"role": "user", "content": "Hello?"}]],
            "parameters": {
                "temperature": 0.6,
                "top_p": 0.9,
                "do_sample": True,
                "max_new_tokens": 200,
            },
        },
        "params": {},
    } == request


def test_the_conversation_ends_with_the_last_user_turn(tmp_path: Path) -> None:
    """The model is asked the last question with all that went before; the answer is held back."""
    row = {"prompt": "q1", "messages": turns("q1", "a1", "q2", "a2", system="be kind")}
    file = write_rows(tmp_path / "test_gen.jsonl", row)

    (picked,) = pick_conversations(file, 1, seed=1)

    assert [
        ("system", "be kind"),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q2"),
    ] == [(message.role, message.content) for message in picked.messages]
    assert ("q2", "a2") == (picked.prompt, picked.reference)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": turns("q1", "a1", "q2")},
        {"messages": turns("q1")},
        {"messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [*turns("q1"), {"role": "tool", "content": "a"}]},
        {"messages": []},
        {"messages": "q1"},
        {"messages": [{"role": "user"}, {"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "a"}]},
        {"text": "no conversation"},
        ["no row"],
    ],
)
def test_a_row_without_an_answered_question_is_passed_over(tmp_path: Path, row: Any) -> None:
    """Only a conversation with a reference can be compared; without any, the data is at fault."""
    good = {"messages": turns("good", "answer")}
    file = write_rows(tmp_path / "test_gen.jsonl", row, good, row)

    assert {"good"} == {pick_conversations(file, 1, seed)[0].prompt for seed in range(5)}
    with pytest.raises(DatasetError, match=r"test_gen\.jsonl has no conversation"):
        pick_conversations(write_rows(file, row, row), 1, seed=1)


def test_equal_seeds_pick_the_same_rows_and_others_do_not(tmp_path: Path) -> None:
    """A run can be repeated; a new run asks something else."""
    rows = [{"messages": turns(f"frage {i} äöü", f"antwort {i}")} for i in range(50)]
    file = write_rows(tmp_path / "test_gen.jsonl", *rows)

    assert pick_conversations(file, 10, seed=3) == pick_conversations(file, 10, seed=3)
    assert 10 == len({asked.prompt for asked in pick_conversations(file, 10, seed=3)})
    assert 1 < len({pick_conversations(file, 1, seed)[0].prompt for seed in range(10)})


def test_a_small_file_gives_what_it_has(tmp_path: Path) -> None:
    """Asking for more conversations than there are is no error; each is asked once."""
    rows = [{"messages": turns(f"q{i}", f"a{i}")} for i in range(3)]
    file = write_rows(tmp_path / "test_gen.jsonl", *rows)

    picked = pick_conversations(file, 10, seed=0)

    assert ["q0", "q1", "q2"] == sorted(asked.prompt for asked in picked)


def test_a_broken_or_missing_file_is_named(tmp_path: Path) -> None:
    """The person is told which file, and where in it."""
    broken = tmp_path / "test_gen.jsonl"
    broken.write_text('{"messages": []}\n{oops\n', encoding="utf-8")

    with pytest.raises(DatasetError, match=r"byte 17 of test_gen\.jsonl is not JSON"):
        pick_conversations(broken, 1, seed=0)
    with pytest.raises(DatasetError, match=r"missing\.jsonl cannot be read"):
        pick_conversations(tmp_path / "missing.jsonl", 1, seed=0)


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ({"output": "hi"}, "hi"),
        ("hi", "hi"),
        (["hi"], "hi"),
        ([{"output": "hi"}], "hi"),
        ({"choices": [{"message": {"role": "assistant", "content": "hi"}}]}, "hi"),
        ({"output": ""}, ""),
        ({"choices": []}, None),
        ({"choices": [{"text": "hi"}]}, None),
        ({"choices": None}, None),
        ({"result": "hi"}, None),
        ({"output": None}, None),
        (["hi", "ho"], None),
        ([], None),
        (7, None),
        (None, None),
    ],
)
def test_the_reply_is_found_in_every_documented_shape(body: Any, reply: str | None) -> None:
    """A reply is taken from the shapes that are known, and never made up from another."""
    assert reply == extract_reply(body)


REQUEST = build_request([Message(role="user", content="Hello?")])
SCORE = {"method": "POST", "path": "/score$"}


def bring_up(workspace: WorkspaceRef, spec: EndpointSpec, endpoint: EndpointRef, model: Any) -> str:
    """Create an endpoint that serves the model, and return its name."""
    create_endpoint(workspace, spec, endpoint)
    deploy(workspace, spec, endpoint, model)
    route_traffic(workspace, endpoint, {spec.deployment_name: 100})
    return endpoint.name


@pytest.fixture
def live(
    workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    endpoint: EndpointRef,
    model: RegisteredModel,
) -> str:
    """The name of an endpoint that answers."""
    return bring_up(workspace, endpoint_spec, endpoint, model)


def scored(emulator: Any) -> list[int]:
    """Statuses of the scoring requests so far."""
    return [row["status"] for row in emulator.requests() if row["path"].endswith("/score")]


def failing(status: int, **effect: Any) -> dict[str, Any]:
    """A fault of the scoring route, at every request."""
    return {"match": SCORE, "effect": {"status": status, **effect}}


def test_a_reply_comes_back(emulator: Any, workspace: WorkspaceRef, live: str) -> None:
    """One request, one reply, by the traffic rules and past them."""
    assert invoke(workspace, live, None, REQUEST, 10)
    assert invoke(workspace, live, "demo", REQUEST, 10)
    assert [200, 200] == scored(emulator)


def test_a_deployment_that_is_not_there_is_an_error(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """The deployment's name goes with the request that names it, and with no other."""
    with pytest.raises(ScoringError):
        invoke(workspace, live, "other", REQUEST, 10, clock=clock)

    assert invoke(workspace, live, None, REQUEST, 10)


def test_many_questions_fetch_the_key_once(
    emulator: Any, workspace: WorkspaceRef, live: str
) -> None:
    """An evaluation does not ask Azure for the key at every question."""
    with connection(workspace, live, None, 10) as ask:
        assert 3 == len([ask(REQUEST) for _ in range(3)])

    keys = [row for row in emulator.requests() if row["path"].lower().endswith("/listkeys")]
    assert 1 == len(keys)


def test_two_endpoints_asked_at_once_never_mix_keys(
    workspace: WorkspaceRef,
    endpoint_spec: EndpointSpec,
    live: str,
    model: RegisteredModel,
    clock: Any,
) -> None:
    """Each request goes with the key of its own endpoint, in turn and from several threads."""
    run = "00000000-0000-4000-8000-00000000000b"
    planned = plan_endpoint(endpoint_spec, run, 1, clock.now())
    other = bring_up(workspace, endpoint_spec, planned, model)

    with (
        connection(workspace, live, "demo", 10) as first,
        connection(workspace, other, None, 10) as second,
    ):
        replies = [first(REQUEST), second(REQUEST), first(REQUEST)]
        with ThreadPoolExecutor(max_workers=2) as pool:
            replies += pool.map(lambda ask: ask(REQUEST), [first, second] * 5)

    assert 13 == len([reply for reply in replies if reply])


@pytest.mark.parametrize("status", [404, 429, 500, 502, 503])
def test_what_passes_is_tried_again(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any, status: int
) -> None:
    """Throttling, an outage and a route that is not there yet do not fail the run."""
    emulator.faults({**failing(status), "nth": [1, 2]})

    assert invoke(workspace, live, None, REQUEST, 10, clock=clock)
    assert [status, status, 200] == scored(emulator)
    assert [1.0, 2.0] == clock.slept


def test_a_model_that_is_busy_is_asked_again(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """A 424 stands for the model's own status, which the header gives."""
    busy = failing(424, headers={"ms-azureml-model-error-statuscode": "429"})
    emulator.faults({**busy, "nth": [1]})

    assert invoke(workspace, live, None, REQUEST, 10, clock=clock)
    assert [424, 200] == scored(emulator)


def test_the_server_says_how_long_to_wait(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """Retry-After is honoured, within bounds, and a date in it is not choked on."""
    emulator.faults(
        {**failing(429, headers={"Retry-After": "7"}), "nth": [1]},
        {**failing(429, headers={"Retry-After": "3600"}), "nth": [2]},
        {**failing(429, headers={"Retry-After": "Sat, 21 Nov 2026 12:00:00 GMT"}), "nth": [3]},
    )

    assert invoke(workspace, live, None, REQUEST, 10, clock=clock)
    assert [7.0, 30.0, 4.0] == clock.slept


def test_trying_again_ends(emulator: Any, workspace: WorkspaceRef, live: str, clock: Any) -> None:
    """An endpoint that stays down is an error, which no outer retry multiplies."""
    emulator.faults(failing(503))

    with pytest.raises(ScoringError, match="answered 503") as outage:
        invoke(workspace, live, None, REQUEST, 10, clock=clock)

    assert (503, False, live) == (
        outage.value.status,
        outage.value.transient,
        outage.value.where,
    )
    assert [503] * 4 == scored(emulator)


@pytest.mark.parametrize(
    "rule",
    [
        failing(408),
        failing(504),
        failing(400),
        failing(401),
        failing(302, headers={"Location": "https://localhost:1/elsewhere"}),
        failing(424, headers={"ms-azureml-model-error-statuscode": "400"}),
        failing(424, headers={"ms-azureml-model-error-statuscode": "408"}),
        failing(424),
    ],
)
def test_a_timeout_or_refusal_is_not_tried_again(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any, rule: dict[str, Any]
) -> None:
    """The model may still be at work on the first request: no second one is put on top."""
    emulator.faults(rule)
    status = rule["effect"]["status"]

    with pytest.raises(ScoringError, match=f"answered {status}") as failure:
        invoke(workspace, live, None, REQUEST, 10, clock=clock)

    assert status == failure.value.status
    assert [status] == scored(emulator)


def test_a_request_that_is_not_answered_is_not_sent_again(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """Our own timeout is one too."""
    emulator.faults({"match": SCORE, "effect": {"delay": 0.5}})

    with pytest.raises(ScoringError, match=r"No answer within 0\.1 seconds") as failure:
        invoke(workspace, live, None, REQUEST, 0.1, clock=clock)

    assert "request_timeout_seconds" in failure.value.remedy
    assert [] == clock.slept


def test_the_models_own_status_is_told(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """A 424 without the status behind it would say nothing."""
    emulator.faults(failing(424, headers={"ms-azureml-model-error-statuscode": "400"}))

    with pytest.raises(ScoringError, match=r"answered 424 \(the model itself: 400\)"):
        invoke(workspace, live, None, REQUEST, 10, clock=clock)


@pytest.mark.parametrize(
    ("effect", "message"),
    [
        ({"status": 200, "body": "<html>Bad gateway</html>"}, "not JSON: <html>Bad gateway"),
        ({"status": 200, "body": ""}, r"not JSON: \(nothing\)"),
        ({"status": 200, "body": '{"result": 7}'}, 'holds no reply: {"result": 7}'),
        ({"status": 200, "body": '"' + "x" * 999}, r"not JSON: \"x{198}…"),
    ],
)
def test_an_answer_without_a_reply_is_an_error(
    emulator: Any,
    workspace: WorkspaceRef,
    live: str,
    clock: Any,
    effect: dict[str, Any],
    message: str,
) -> None:
    """Status 200 is not enough, and the person sees the beginning of what came."""
    emulator.faults({"match": SCORE, "effect": effect})

    with pytest.raises(ScoringError, match=message):
        invoke(workspace, live, None, REQUEST, 10, clock=clock)


@pytest.mark.parametrize("after", ["nan", "inf", "-1", "soon", "1e999"])
def test_one_blank_answer_is_asked_for_again(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any, after: str
) -> None:
    """After a training that was paid, one answer that cannot be read costs a few seconds."""
    busy = {"status": 503, "headers": {"Retry-After": after}}
    emulator.faults(
        {"match": SCORE, "nth": [1], "effect": {"status": 200, "body": ""}},
        {"match": SCORE, "nth": [2], "effect": busy},
    )

    assert invoke(workspace, live, None, REQUEST, 10, clock=clock)
    assert sum(clock.slept) < 60


def test_the_key_is_in_no_message(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """A server that echoes the request does not put the key into a log."""
    key = ml_client(workspace).online_endpoints.get_keys(live).primary_key
    emulator.faults(failing(400, body=f"{'x' * 170} {key} {key}"))

    with pytest.raises(ScoringError) as failure:
        invoke(workspace, live, None, REQUEST, 10, clock=clock)

    assert key[:4] not in str(failure.value)
    assert "xxx *** ***" in str(failure.value)


def test_no_error_carries_the_key_in_what_it_was_raised_from(
    emulator: Any, workspace: WorkspaceRef, live: str, clock: Any
) -> None:
    """A server that has gone leaves an error whose causes hold no request, and so no key."""
    with connection(workspace, live, None, 10, clock=clock) as ask:
        emulator.server.stop()
        with pytest.raises(ScoringError, match="could not be reached") as failure:
            ask(REQUEST)

    link: BaseException | None = failure.value
    while link is not None:
        assert not hasattr(link, "request")
        link = link.__cause__ or link.__context__


def test_an_endpoint_that_is_not_there_is_an_error(workspace: WorkspaceRef) -> None:
    """Without an endpoint there is no key to fetch."""
    with pytest.raises(ServiceError, match="reading the address and key of ultrachat-none-a1"):
        invoke(workspace, "ultrachat-none-a1", None, REQUEST, 10)
