"""The live check, tried on the emulator: it reads, it tells no secrets, it stays in its budget."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from azureml_emulator import settings

from cli.live_check import BUDGET, EMULATOR_SHAPES, PROFILE, main, worst_case
from cli.shapes import compare
from lifecycle.config import load_config

SIZES = r"/vmSizes$"


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the report goes, in a test that has no budget of the developer's."""
    monkeypatch.delenv(BUDGET, raising=False)
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "report.json"


def test_without_a_budget_it_only_reads(emulator: Any, report: Path) -> None:
    """Every check is made and well, with nothing but GETs, and nothing is billed."""
    code = main(["--report", str(report)])

    document = json.loads(report.read_text())
    assert 0 == code, document["checks"]
    assert {
        "sign-in",
        "model",
        "component",
        "sizes",
        "cluster",
        "quota",
        "endpoints",
        "data plane",
    } == {check["what"] for check in document["checks"]}
    assert {"GET"} == {row["method"] for row in emulator.requests()}
    assert [] == emulator.ledger()["meters"]


def test_it_says_where_the_allow_lists_were_found(emulator: Any, report: Path) -> None:
    """The one thing that nobody could tell us about the live wire."""
    main(["--report", str(report)])

    said = {check["what"]: check["said"] for check in json.loads(report.read_text())["checks"]}
    assert "allow lists found in: system_metadata" in said["model"]


def test_the_report_names_nothing_of_the_users(emulator: Any, report: Path) -> None:
    """No id, no address, no token, no folder: it can be shared as it is."""
    main(["--report", str(report)])

    for path in (report, report.with_suffix(".txt")):
        text = path.read_text()
        assert None is re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-", text)
        assert None is re.search(r"https?://|localhost|eyJ", text)
        assert settings.SUBSCRIPTION_ID not in text
        assert str(emulator.state) not in text


def test_what_azure_refuses_is_reported_without_its_words(
    emulator: Any, report: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The terminal has Azure's message; the report has our code and the status."""
    body = '{"error": {"code": "AuthorizationFailed", "message": "jane@acme.example may not"}}'
    emulator.faults({"match": {"path": SIZES}, "effect": {"status": 403, "body": body}})

    code = main(["--report", str(report)])

    assert 1 == code
    assert "jane@acme.example" in capsys.readouterr().err
    assert "jane@acme.example" not in report.read_text()
    assert "ServiceError, status 403" == _said(report, "sizes")


def test_an_answer_that_cannot_be_read_is_a_finding(emulator: Any, report: Path) -> None:
    """What is built otherwise than the SDK or we expect is told, and the other checks go on."""
    effect = {"status": 200, "body": '{"value": [{"name": "acme", "properties": null}]}'}
    emulator.faults({"match": {"path": "/onlineEndpoints$"}, "effect": effect})

    code = main(["--report", str(report)])

    assert 1 == code
    assert " at " in _said(report, "endpoints")
    assert "acme" not in report.read_text()
    assert _said(report, "sizes")


def test_the_committed_shapes_are_what_the_emulator_answers(
    emulator: Any,
    report: Path,
    prefect_server: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A life cycle within the budget leaves nothing billed; the committed file is up to date."""
    monkeypatch.setenv(BUDGET, "1000")
    seen_file = tmp_path / "shapes.json"

    code = main(["--life-cycle", "--report", str(report), "--record", str(seen_file)])

    assert 0 == code
    assert "exit code 0" == _said(report, "life cycle")
    assert [] == emulator.open_meters()
    committed, seen = json.loads(EMULATOR_SHAPES.read_text()), json.loads(seen_file.read_text())
    again = (
        f"run `python -m cli.live_check --life-cycle --record {EMULATOR_SHAPES}` on the emulator"
    )
    assert [] == compare(committed, seen), again
    assert set(committed) == set(seen), again


@pytest.mark.parametrize(
    ("budget", "setting", "where"),
    [
        (None, None, BUDGET),
        ("much", None, BUDGET),
        ("nan", None, BUDGET),
        ("1.5", None, BUDGET),
        ("1000", "job.run_deadline_minutes=0", "job"),
        ("1000", "job.queue_deadline_minutes=0", "job"),
        ("1000", "endpoint.keep=true", "endpoint.keep"),
        ("1000", "compute.tier=low_priority", "compute.tier"),
        ("1000", "compute.size=Standard_NX1", "compute.size"),
        ("1000", "endpoint.instance_type=Standard_NX1", "endpoint.instance_type"),
    ],
)
def test_a_life_cycle_without_a_bound_is_refused(
    emulator: Any,
    report: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    budget: str | None,
    setting: str | None,
    where: str,
) -> None:
    """Exit 2 before anything is asked of Azure, with the place and what it may cost."""
    if budget is not None:
        monkeypatch.setenv(BUDGET, budget)
    settings_ = [] if setting is None else ["--set", setting]

    code = main(["--life-cycle", "--report", str(report), *settings_])

    said = capsys.readouterr().err
    assert 2 == code
    assert re.search(rf"where +{re.escape(where)}\n", said), said
    assert [] == emulator.requests()
    assert not report.exists()


def test_the_price_counts_waiting_running_idling_and_the_endpoint() -> None:
    """One node for 60 + 45 + 2 minutes and one instance for 90, both at 3.673 USD an hour."""
    config = load_config(PROFILE)

    assert pytest.approx(3.673 * (107 + 90) / 60) == worst_case(config)


def _said(report: Path, what: str) -> str:
    checks = json.loads(report.read_text())["checks"]
    said: str = next(check["said"] for check in checks if check["what"] == what)
    return said
