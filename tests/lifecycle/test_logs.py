"""Logs are followed by byte: each line once and whole, whatever the service does in between."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ServiceRequestError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifecycle.errors import ServiceError
from lifecycle.logs import JobLogs, LogLine, LogTail, Run

WORKSPACE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.MachineLearningServices/w"
RUNS = f"history/v1.0{WORKSPACE}/runs"
STD_LOG = "user_logs/std_log.txt"
OUTLINE = "logs/azureml/executionlogs.txt"


class Pages:
    """A data plane whose answers the test writes: the seam at which HTTP would begin."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.logs: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.broken: dict[str, Exception] = {}
        self.page_size = 100

    def run(self, run_id: str, status: str, parent: str | None = None, **more: Any) -> None:
        """Set the state of a run."""
        self.runs[run_id] = {"runId": run_id, "status": status, "parent": parent, **more}

    def log(self, run_id: str, text: str | bytes, name: str = STD_LOG) -> None:
        """Write on in a run's log."""
        data = text if isinstance(text, bytes) else text.encode()
        address = f"https://storage/{run_id}/{name}"
        self.logs[address] = self.logs.get(address, b"") + data
        self.runs[run_id].setdefault("logFiles", {})[name] = address

    def get_json(self, url: str, params: Mapping[str, str] | None = None) -> dict[str, Any]:
        self.asked.append(url)
        self._break(url)
        run_id, _, what = url.removeprefix(f"{RUNS}/").partition("/")
        if what == "details":
            return self.runs[run_id]
        children = [run for run in self.runs.values() if run["parent"] == run_id]
        first = int((params or {}).get("$continuationtoken", 0))
        rest = first + self.page_size
        token = {"continuationToken": str(rest)} if rest < len(children) else {}
        return {"value": children[first:rest], **token}

    def get_text(self, url: str, offset: int = 0) -> bytes:
        self.asked.append(f"{url}@{offset}")
        self._break(url)
        return self.logs[url][offset:]

    def _break(self, url: str) -> None:
        for part, error in self.broken.items():
            if part in url:
                raise error


def follow(pages: Pages, lines: list[LogLine]) -> JobLogs:
    """Follow the job J of those pages."""
    return JobLogs(pages, WORKSPACE, Run("J", "fine-tune"), lines.append)


def texts(lines: list[LogLine], source: str) -> list[str]:
    """What a source logged, its changes of status left out."""
    return [
        line.text
        for line in lines
        if line.source == source and not line.text.startswith("Status: ")
    ]


@given(st.text(), st.lists(st.integers(0, 7), max_size=100))
def test_lines_come_whole_and_once_however_the_bytes_are_cut(text: str, sizes: list[int]) -> None:
    """No cut, also none within a character, doubles, loses or breaks a line."""
    text = text.replace("\r", "")
    content = text.encode("utf-8", "surrogatepass")
    tail = LogTail()
    lines: list[str] = []
    for size in sizes:
        lines += tail.take(content[tail.offset : tail.offset + size], final=False)
    lines += tail.take(content[tail.offset :], final=True)

    whole = content.decode("utf-8", "replace")
    assert (whole.split("\n")[:-1] if whole.endswith("\n") else whole.split("\n")) == (
        lines or [""]
    )


@pytest.mark.parametrize(
    ("pieces", "lines"),
    [
        ([b"one\r\ntwo\r", b"\nthree"], ["one", "two", "three"]),
        ([b"\r 10%", b"\r 20%", b"\r100%\ndone\n"], ["100%", "done"]),
        ([b"\n", b"\n\n"], ["", "", ""]),
        ([b"caf\xff\n"], ["caf\ufffd"]),
    ],
)
def test_carriage_returns_and_broken_bytes(pieces: list[bytes], lines: list[str]) -> None:
    """A progress bar gives its last state, a Windows line no odd end, a bad byte no error."""
    tail = LogTail()

    found = [line for piece in pieces for line in tail.take(piece, final=False)]

    assert lines == found + tail.take(b"", final=True)


def test_a_progress_bar_is_not_kept_whole() -> None:
    """Hours of one line drawn over itself do not fill the memory."""
    tail = LogTail()
    for _ in range(1000):
        tail.take(b"\r" + b"#" * 1000, final=False)

    assert ["#" * 1000] == tail.take(b"", final=True)
    assert 1001 * 1000 == tail.offset


def test_lines_of_parent_and_steps_appear_once_as_they_are_written() -> None:
    """Parent, pipeline step and the commands below it, each under its own name."""
    pages, lines = Pages(), list[LogLine]()
    logs = follow(pages, lines)
    pages.run("J", "Running")
    pages.log("J", "[1] Submitting\n", OUTLINE)
    pages.run("P", "Running", "J", displayName="pipeline")
    pages.run("S", "Running", "P", displayName="finetune")
    pages.log("S", "epoch 1\nepo")
    logs.look()
    pages.log("S", "ch 2\nlast")
    pages.log("J", "[2] Done\n", OUTLINE)
    logs.look()
    for run in ("S", "P", "J"):
        pages.runs[run]["status"] = "Completed"
    logs.look()
    logs.look()

    assert ["[1] Submitting", "[2] Done"] == texts(lines, "fine-tune")
    assert ["epoch 1", "epoch 2", "last"] == texts(lines, "finetune")
    assert logs.job.is_read


def test_changes_of_status_are_told_once() -> None:
    """A quiet watch: a line when something changes, none when nothing does."""
    pages, lines = Pages(), list[LogLine]()
    logs = follow(pages, lines)
    news = []
    for status in ("NotStarted", "Queued", "Queued", "Running", "Completed"):
        pages.run("J", status)
        news.append(logs.look())

    assert ["Status: Queued", "Status: Running", "Status: Completed"] == [x.text for x in lines]
    assert [False, True, False, True, True] == news


def test_what_has_ended_and_is_read_is_not_asked_again() -> None:
    """Hours of training do not ask at every look for the steps that are done."""
    pages, lines = Pages(), list[LogLine]()
    logs = follow(pages, lines)
    pages.run("J", "Running")
    pages.run("A", "Completed", "J", displayName="import")
    pages.log("A", "imported\n")
    pages.run("B", "Running", "J", displayName="finetune")
    pages.log("B", "epoch 1\n")
    pages.run("C", "NotStarted", "J", displayName="convert")
    logs.look()
    pages.asked.clear()
    logs.look()

    assert [
        f"{RUNS}/J/details",
        f"{RUNS}/J/children",
        f"{RUNS}/B/details",
        f"https://storage/B/{STD_LOG}@8",
    ] == pages.asked


def test_all_pages_of_children_are_read() -> None:
    """A long list comes in pages."""
    pages, lines = Pages(), list[LogLine]()
    pages.page_size = 2
    pages.run("J", "Running")
    for number in range(5):
        pages.run(f"S{number}", "Completed", "J", displayName=f"step {number}")
        pages.log(f"S{number}", f"line {number}\n")
    follow(pages, lines).look()

    assert [f"line {n}" for n in range(5)] == [
        line.text for line in lines if line.text.startswith("line")
    ]


def test_an_unreadable_log_is_read_the_next_time() -> None:
    """An expired signature delays lines, and loses none."""
    pages, lines = Pages(), list[LogLine]()
    logs = follow(pages, lines)
    pages.run("J", "Running")
    pages.run("S", "Completed", "J", displayName="finetune")
    pages.log("S", "one\ntwo")
    pages.broken["https://storage"] = HttpResponseError("Server failed to authenticate: expired")
    logs.look()
    unreadable, was_read = logs.unreadable, logs.job.children["S"].is_read
    pages.broken.clear()
    logs.look()

    assert unreadable is not None
    assert not was_read
    assert ["one", "two"] == texts(lines, "finetune")
    assert logs.unreadable is None


def test_a_lost_connection_loses_no_line() -> None:
    """What was read before the connection went is neither lost nor read twice."""
    pages, lines = Pages(), list[LogLine]()
    logs = follow(pages, lines)
    pages.run("J", "Running")
    pages.run("S", "Running", "J", displayName="finetune")
    pages.log("S", "one\n")
    pages.log("J", "outline\n", OUTLINE)
    pages.broken["S/details"] = ServiceRequestError("connection reset")
    logs.look()
    assert "did not answer" in str(logs.unreadable)
    pages.broken.clear()
    logs.look()

    assert ["outline"] == texts(lines, "fine-tune")
    assert ["one"] == texts(lines, "finetune")


def test_the_job_itself_must_be_readable() -> None:
    """Whoever follows it goes by the job's own status then, and asks again later."""
    pages = Pages()
    logs = follow(pages, [])
    pages.run("J", "Running")
    pages.broken["J/details"] = ServiceRequestError("connection reset")

    with pytest.raises(ServiceError, match="did not answer"):
        logs.look()


def test_steps_that_were_not_read_just_now_are_not_shown_as_seen() -> None:
    """What a step did an hour ago is no evidence that it waits or runs."""
    pages = Pages()
    logs = follow(pages, [])
    pages.run("J", "Running")
    pages.run("S", "Running", "J")
    pages.run("T", "Completed", "J")
    logs.look()
    assert ["S", "T"] == [step.id for step in logs.steps_seen()]

    pages.broken["J/children"] = ServiceRequestError("connection reset")
    logs.look()

    assert ["T"] == [step.id for step in logs.steps_seen()]
    assert ["S", "T"] == [step.id for step in logs.steps()]


_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["J", "S", "Running", "queued", "COMPLETED", "0001-01-01T00:00:00", "http://x"]
    )
    | st.sampled_from(
        ["2026-03-27T04:02:25.1975312Z", "2026-03-27 04:02:25", "9999-12-31T23:59-14"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
_RUN = st.fixed_dictionaries(
    {},
    optional={
        "runId": st.sampled_from(["J", "S", "T", "U"]) | _ANYTHING,
        "run_id": st.sampled_from(["S", "T"]),
        "displayName": _ANYTHING,
        "status": st.sampled_from(["Running", "completed", "Flummoxed"]) | _ANYTHING,
        "STATUS": st.just("Queued"),
        "startTimeUtc": _ANYTHING,
        "endTimeUtc": _ANYTHING,
        "error": _ANYTHING | st.fixed_dictionaries({"error": _ANYTHING}),
        "logFiles": _ANYTHING
        | st.dictionaries(st.sampled_from([STD_LOG, OUTLINE, "x"]), _ANYTHING, max_size=3),
    },
)
_LISTED = st.fixed_dictionaries(
    {},
    optional={
        "value": st.lists(_RUN | _ANYTHING, max_size=4) | _ANYTHING,
        "continuationToken": st.just("again") | _ANYTHING,
    },
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_RUN | _ANYTHING, max_size=6), st.lists(_LISTED | _ANYTHING, max_size=6))
def test_a_history_of_whatever_shape_raises_nothing_and_ends(
    details: list[Any], listed: list[Any]
) -> None:
    """Its shape is a guess of ours: what is not understood is as if it had not been said."""
    asked = 0

    class Plane:
        def get_json(self, url: str, params: Mapping[str, str] | None = None) -> Any:
            nonlocal asked
            asked += 1
            answers = details if url.endswith("/details") else listed
            return answers[asked % len(answers)] if answers else {}

        def get_text(self, url: str, offset: int = 0) -> bytes:
            return b"a line\n"[offset:]

    logs = JobLogs(Plane(), WORKSPACE, Run("J", "fine-tune"), lambda line: None)
    for _ in range(3):
        # Of the job itself something must be understood, or there is nothing to go by.
        with suppress(ServiceError):
            logs.look()
    for step in logs.steps():
        assert isinstance(step.status, str)
        assert step.began_at is None or step.began_at.tzinfo is not None
        assert step.seconds is None or isinstance(step.seconds, float)
    assert asked < 1000


def test_other_ranks_are_told_apart() -> None:
    """A failure on another node is seen, and whose it is."""
    pages, lines = Pages(), list[LogLine]()
    pages.run("J", "Running")
    pages.run("S", "Running", "J", displayName="finetune")
    pages.log("S", "first\n", "user_logs/std_log_process_00.txt")
    pages.log("S", "second\n", "user_logs/std_log_process_01.txt")
    pages.log("S", "system\n", "system_logs/lifecycler/execution-wrapper.log")
    follow(pages, lines).look()

    assert [
        ("finetune user_logs/std_log_process_00.txt", "first"),
        ("finetune user_logs/std_log_process_01.txt", "second"),
    ] == [(x.source, x.text) for x in lines if not x.text.startswith("Status")]


def test_the_innermost_error_and_the_tail_are_kept() -> None:
    """What a failed step says, and its last 20 lines, are there for the error."""
    pages, lines = Pages(), list[LogLine]()
    logs = follow(pages, lines)
    pages.run("J", "Failed")
    error = {"error": {"code": "UserError", "message": "CUDA out\nof memory"}}
    pages.run("S", "Failed", "J", displayName="finetune", error=error)
    pages.log("S", "".join(f"line {n}\n" for n in range(30)))
    logs.look()
    step = logs.job.children["S"]

    assert "UserError: CUDA out of memory" == step.error
    assert [f"line {n}" for n in range(10, 30)] == list(step.tail)


def test_duration_is_read_as_azure_writes_it() -> None:
    """Seven digits of a second, and Z."""
    pages = Pages()
    pages.run(
        "J",
        "Completed",
        startTimeUtc="2026-11-21T10:00:00.1234567Z",
        endTimeUtc="2026-11-21T11:00:01.1234567Z",
    )
    logs = follow(pages, [])
    logs.look()

    assert 3601 == logs.job.seconds
