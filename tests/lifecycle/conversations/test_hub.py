"""The hub: a revision is resolved to a commit once, and only that commit is read.

A server of this test's answers as the hub does, to the unmodified libraries, each time in a process
of its own, since they read the hub's address when they are imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import COMMIT, Web, turns

PROGRAM = """
    import json, sys
    from pathlib import Path
    from lifecycle.dataset import DatasetSpec, download_data
    from lifecycle.errors import DatasetError

    spec = DatasetSpec(path="someone/chats", test_split="train_sft", generation_split=None,
                       **json.loads(sys.argv[1]))
    try:
        print(download_data(spec, Path("out")).model_dump_json())
    except DatasetError as error:
        print(json.dumps(error.as_dict()))
"""


@pytest.fixture
def hub(web: Web) -> Web:
    """A hub with one data set of 2,000 conversations, in two files."""
    (web.folder / "data").mkdir()
    for part in range(2):
        rows = [{"messages": turns(part * 1000 + n), "prompt": "x" * 500} for n in range(1000)]
        name = f"train_sft-{part:05}-of-00002.parquet"
        pq.write_table(
            pa.Table.from_pylist(rows),
            web.folder / "data" / name,
            row_group_size=100,
            compression="none",
            use_dictionary=False,
        )
    return web


def prepare(hub: Web, folder: Path, **values: Any) -> dict[str, Any]:
    """Prepare it in a process of its own; return the result or the error."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    hub.requests.clear()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), json.dumps(values)],
        cwd=folder,
        env={
            **clean,
            "HF_HOME": str(folder / "hf"),
            "HF_ENDPOINT": hub.url,
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_branch_is_read_at_its_commit_and_found_again(hub: Web, tmp_path: Path) -> None:
    """The report names it, another run asks for nothing else, and a branch that moved is seen."""
    first = prepare(hub, tmp_path, revision="main", percentage=5)
    files = [one for one in hub.requests if one.startswith("GET /datasets/")]
    again = prepare(hub, tmp_path, revision="main", percentage=5)
    asked_again = [one for one in hub.requests if "/datasets/" in one]
    hub.branches |= {"main": "1" * 40, "1" * 40: "1" * 40}
    moved = prepare(hub, tmp_path, revision="main", percentage=5)

    assert COMMIT == first["revision"]
    lines = Path(first["files"][0]["path"]).read_text(encoding="utf-8").splitlines()
    assert [turns(n) for n in range(100)] == [json.loads(line)["messages"] for line in lines]
    assert all(f"/resolve/{COMMIT}/" in one for one in files)
    assert first == again
    assert ["GET /api/datasets/someone/chats/revision/main"] == asked_again
    assert "1" * 40 == moved["revision"]
    assert first["files"][0]["sha256"] == moved["files"][0]["sha256"]


def test_a_commit_is_found_again_without_the_hub(hub: Web, tmp_path: Path) -> None:
    """A run that is pinned needs no network for data that it has."""
    first = prepare(hub, tmp_path, revision=COMMIT)
    hub.is_down = True
    again = prepare(hub, tmp_path, revision=COMMIT)

    assert first == again
    assert [] == [one for one in hub.requests if "/datasets/" in one]


def test_without_the_hub_a_branch_is_the_commit_that_it_was(hub: Web, tmp_path: Path) -> None:
    """Remembered from the last time; and without a last time it is an error that may pass."""
    first = prepare(hub, tmp_path, revision="v1")
    hub.is_down = True
    again = prepare(hub, tmp_path, revision="v1")
    unknown = prepare(hub, tmp_path, revision="main")

    assert first == again
    assert ("DatasetError", True) == (unknown["code"], unknown["transient"])


def test_an_unknown_revision_is_refused(hub: Web, tmp_path: Path) -> None:
    """Once, not tried again."""
    refused = prepare(hub, tmp_path, revision="v9")

    assert ("DatasetError", False) == (refused["code"], refused["transient"])
