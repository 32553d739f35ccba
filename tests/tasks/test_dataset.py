"""The data step in the Prefect UI: bars while it runs, a page about the data when it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import ArtifactSort

from lifecycle.clients import WorkspaceRef
from lifecycle.dataset import DatasetSpec, Progress
from tasks.dataset import download_data, show_progress

REF = WorkspaceRef(subscription_id="none", resource_group="none", name="none")

pytestmark = pytest.mark.usefixtures("prefect_server")


def artifacts(kind: str) -> list[Any]:
    """The artifacts of that kind, newest first."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(sort=ArtifactSort.CREATED_DESC, limit=50)
    return [one for one in found if one.type == kind]


def test_what_the_data_holds_is_a_page_with_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counts, histogram and conversations, for whoever opens the run."""
    monkeypatch.setenv("FINETUNE_CACHE", str(tmp_path))

    monkeypatch.setattr("tasks.dataset._SECONDS_A_LINE", 0.0)

    @flow
    def run() -> str:
        spec = DatasetSpec(path="demo/ultrachat", percentage=100)
        return download_data(spec, REF).name

    assert "demo/ultrachat" == run()
    page = next(one for one in artifacts("markdown") if one.key == "data-set")
    assert "| train_sft | 240 | 240 |" in page.data
    assert "![histogram](data:image/svg+xml;base64," in page.data
    assert "## Conversations of train_sft" in page.data
    bars = {one.description.partition(":")[0]: float(one.data) for one in artifacts("progress")}
    splits = ("train_sft", "test_sft", "train_gen", "test_gen")
    assert [100.0] * 4 == [bars[split] for split in splits]


def test_a_bar_for_each_split_moves() -> None:
    """One bar, updated; with rows a second and the time left."""
    bars: dict[str, UUID] = {}

    @flow
    def run() -> None:
        show_progress(Progress("train_sft", 100, 400, 0, 1.0), bars)
        show_progress(Progress("train_sft", 300, 400, 0, 2.0), bars)
        show_progress(Progress("test_sft", 10, 40, 0, 1.0), bars)

    run()

    shown = {one.id: one for one in artifacts("progress")}
    assert {"train_sft", "test_sft"} == set(bars)
    moved = shown[bars["train_sft"]]
    assert 75.0 == float(moved.data)
    assert "train_sft: 300 of 400 rows, 150 a second, 1 s left" == moved.description
