"""The data step as a whole: what is read, what is refused, and what is used again."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lifecycle.dataset import DatasetSpec, download_data
from lifecycle.errors import DatasetError

SPLITS = ("train_sft", "test_sft", "train_gen", "test_gen")
ROWS = {"train_sft": 200, "test_sft": 40, "train_gen": 30, "test_gen": 10}


def conversation(number: int) -> list[dict[str, str]]:
    """One question and its answer; with letters outside ASCII."""
    return [
        {"role": "user", "content": f"Où est le n° {number}?"},
        {"role": "assistant", "content": f"Là: {number} ☃"},
    ]


def rows_of(split: str) -> list[dict[str, Any]]:
    """The rows of one split, as the hub's data set has them."""
    return [
        {"prompt": f"{split} {n}", "prompt_id": f"{n:04}", "messages": conversation(n)}
        for n in range(ROWS[split])
    ]


def write_jsonl(folder: Path, splits: tuple[str, ...] = SPLITS) -> Path:
    """A folder with a JSON lines file for each split."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in splits:
        lines = "".join(json.dumps(row) + "\n" for row in rows_of(split))
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def write_parquet(folder: Path) -> Path:
    """The same in Parquet."""
    from datasets import Dataset

    folder.mkdir()
    for split in SPLITS:
        Dataset.from_list(rows_of(split)).to_parquet(folder / f"{split}.parquet")
    return folder


def write_csv(folder: Path) -> Path:
    """The same in CSV, which can hold a conversation only as text."""
    folder.mkdir()
    for split in SPLITS:
        with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["prompt", "prompt_id", "messages"])
            writer.writeheader()
            for row in rows_of(split):
                writer.writerow({**row, "messages": json.dumps(row["messages"])})
    return folder


def write_saved(folder: Path) -> Path:
    """The same as ``save_to_disk`` writes it."""
    from datasets import Dataset, DatasetDict

    splits = DatasetDict({split: Dataset.from_list(rows_of(split)) for split in SPLITS})
    splits.save_to_disk(folder)
    return folder


def write_snapshot(folder: Path) -> Path:
    """The same laid out as a download of the hub's repository."""
    from datasets import Dataset

    (folder / "data").mkdir(parents=True)
    for split in SPLITS:
        Dataset.from_list(rows_of(split)).to_parquet(
            folder / "data" / f"{split}-00000-of-00001.parquet"
        )
    return folder


def spec_for(folder: Path, **values: Any) -> DatasetSpec:
    """A spec for that folder."""
    return DatasetSpec(path=str(folder), **values)


@pytest.mark.parametrize(
    "write", [write_jsonl, write_parquet, write_csv, write_saved, write_snapshot]
)
def test_every_local_form_gives_the_first_part_of_all_splits(
    write: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Whatever form a folder has, each split's first 5 % come out as the same conversations."""
    spec = spec_for(write(tmp_path / "source"), percentage=5)

    result = download_data(spec, tmp_path / "out")

    assert {"train_sft": 10, "test_sft": 2, "train_gen": 2, "test_gen": 1} == {
        file.split: file.rows for file in result.files
    }
    lines = Path(result.file("train_sft").path).read_text(encoding="utf-8").splitlines()
    assert [{"messages": conversation(n)} for n in range(10)] == [json.loads(it) for it in lines]
    assert result.revision is None


@pytest.mark.parametrize(("percentage", "rows"), [(0.001, 1), (1, 2), (12.3, 25), (100, 200)])
def test_percentage_is_rounded_as_datasets_rounds_and_never_to_nothing(
    percentage: float, rows: int, tmp_path: Path
) -> None:
    """The slice is the tutorial's ``[0%:pc%]``; a tiny one still holds a row."""
    spec = spec_for(write_jsonl(tmp_path / "source"), percentage=percentage)

    assert rows == download_data(spec, tmp_path / "out").file("train_sft").rows


@pytest.mark.parametrize("percentage", [0, -1, 101, 100.5])
def test_percentage_outside_its_bounds_is_refused(percentage: float) -> None:
    """Nothing below or at 0, nothing above 100."""
    with pytest.raises(ValidationError, match="percentage"):
        DatasetSpec(percentage=percentage)


def test_digest_is_the_files_own(tmp_path: Path) -> None:
    """What the report calls sha256 is the digest of the bytes that are uploaded."""
    file = download_data(spec_for(write_jsonl(tmp_path / "source")), tmp_path / "out").file(
        "train_sft"
    )

    assert hashlib.sha256(Path(file.path).read_bytes()).hexdigest() == file.sha256


def test_equal_inputs_give_equal_bytes_and_use_the_files_again(tmp_path: Path) -> None:
    """A second run writes nothing; a run elsewhere writes the same bytes."""
    spec = spec_for(write_jsonl(tmp_path / "source"))
    first = download_data(spec, tmp_path / "out")
    written = Path(first.files[0].path).stat()

    again = download_data(spec, tmp_path / "out")
    elsewhere = download_data(spec, tmp_path / "other")

    assert first == again
    assert written.st_mtime_ns == Path(again.files[0].path).stat().st_mtime_ns
    assert [f.sha256 for f in first.files] == [f.sha256 for f in elsewhere.files]


def test_a_damaged_file_is_written_anew(tmp_path: Path) -> None:
    """A file that no longer has its digest is not uploaded."""
    spec = spec_for(write_jsonl(tmp_path / "source"))
    first = download_data(spec, tmp_path / "out")
    damaged = Path(first.file("train_sft").path)
    damaged.write_bytes(damaged.read_bytes()[:-20])

    again = download_data(spec, tmp_path / "out")

    assert first == again
    assert again.file("train_sft").sha256 == hashlib.sha256(damaged.read_bytes()).hexdigest()


def test_changed_rows_are_read_anew(tmp_path: Path) -> None:
    """A folder whose content changed does not meet yesterday's files, also at equal size."""
    source = write_jsonl(tmp_path / "source")
    before = download_data(spec_for(source), tmp_path / "out")
    text = (source / "train_sft.jsonl").read_text(encoding="utf-8")
    (source / "train_sft.jsonl").write_text(text.replace("est le n", "fut le n"), encoding="utf-8")

    after = download_data(spec_for(source), tmp_path / "out")

    assert before.file("train_sft").sha256 != after.file("train_sft").sha256
    assert before.file("test_sft").sha256 == after.file("test_sft").sha256


def test_a_refused_row_leaves_nothing_behind(tmp_path: Path) -> None:
    """Files appear all together or not at all."""
    source = write_jsonl(tmp_path / "source")
    (source / "test_sft.jsonl").write_text('{"messages": [{"role": "user"}]}\n')

    with pytest.raises(DatasetError, match=r"test_sft:0: message 0 has no content"):
        download_data(spec_for(source), tmp_path / "out")

    assert [".locks"] == [path.name for path in (tmp_path / "out").iterdir()]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": []},
        {"messages": "no JSON"},
        {"messages": [{"content": "who?"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"text": "no messages at all"},
    ],
)
def test_rows_that_are_no_conversations_are_refused(row: dict[str, Any], tmp_path: Path) -> None:
    """The trainer would reject them forty minutes later."""
    source = write_jsonl(tmp_path / "source")
    (source / "train_sft.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")

    with pytest.raises(DatasetError, match=r"train_sft.*message"):
        download_data(spec_for(source), tmp_path / "out")


def test_a_missing_split_is_refused_with_those_there_are(tmp_path: Path) -> None:
    """The message names the parameter and the splits to choose from."""
    source = write_jsonl(tmp_path / "source", ("train_sft", "test_sft"))

    with pytest.raises(DatasetError) as refusal:
        download_data(spec_for(source), tmp_path / "out")

    assert "dataset.generation_split" == refusal.value.where
    assert "test_sft, train_sft" in refusal.value.message
    download_data(spec_for(source, generation_split=None), tmp_path / "out")


@pytest.mark.parametrize("path", ["./not/here/at/all", "/not/here", "~/not-here-at-all"])
def test_a_missing_folder_is_refused(path: str, tmp_path: Path) -> None:
    """What is neither a folder nor a hub id is refused without asking the hub."""
    with pytest.raises(DatasetError, match="no folder"):
        download_data(DatasetSpec(path=path), tmp_path)


def test_an_empty_folder_and_a_file_are_refused(tmp_path: Path) -> None:
    """Each with what to name instead."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "rows.jsonl").write_text("{}")

    with pytest.raises(DatasetError, match="is empty"):
        download_data(spec_for(tmp_path / "empty"), tmp_path / "out")
    with pytest.raises(DatasetError, match="Name the folder"):
        download_data(spec_for(tmp_path / "rows.jsonl"), tmp_path / "out")


def test_an_unreadable_file_is_a_data_error(tmp_path: Path) -> None:
    """What the libraries raise, of whatever type, comes out as ours."""
    source = write_parquet(tmp_path / "source")
    (source / "train_sft.parquet").write_bytes(b"no Parquet")

    with pytest.raises(DatasetError, match="could not be prepared") as refusal:
        download_data(spec_for(source), tmp_path / "out")

    assert refusal.value.__cause__ is not None


def test_a_revision_of_a_folder_is_refused(tmp_path: Path) -> None:
    """A pin that pins nothing is not passed over in silence."""
    spec = spec_for(write_jsonl(tmp_path / "source"), revision="main")

    with pytest.raises(DatasetError, match="no revisions"):
        download_data(spec, tmp_path / "out")


@pytest.mark.parametrize(
    ("environment", "transient"),
    [({"HF_HUB_OFFLINE": "1"}, False), ({"HTTPS_PROXY": "http://127.0.0.1:9"}, True)],
)
def test_an_unreachable_hub_is_a_data_error(
    environment: dict[str, str], transient: bool, tmp_path: Path
) -> None:
    """Offline by choice is final; a lost network may come back. Its own process: read at import."""
    program = """
        import time
        time.sleep = lambda seconds: None
        from pathlib import Path
        from lifecycle.dataset import DatasetSpec, download_data
        from lifecycle.errors import DatasetError
        try:
            download_data(DatasetSpec(path="nobody/nothing"), Path("out"))
        except DatasetError as error:
            print(error.where, error.transient, error.message)
    """
    clean = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=tmp_path,
        env={
            **clean,
            "HF_HOME": str(tmp_path),
            "PYTHONPATH": os.pathsep.join(sys.path),
            **environment,
        },
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.startswith(f"dataset.path {transient} The Hugging Face hub")


@pytest.mark.parametrize(
    ("path", "short", "suffix"),
    [
        ("HuggingFaceH4/ultrachat_200k", "ultrachat", "ultrachat-200k"),
        ("tatsu-lab/alpaca", "alpaca", "alpaca"),
        ("/data/my chats/", "my-chats", "my-chats"),
        ("./support_10m", "support", "support-10m"),
    ],
)
def test_names_are_made_from_the_path(path: str, short: str, suffix: str) -> None:
    """The mission's two names come from its hub id, and any path gives names that Azure takes."""
    spec = DatasetSpec(path=path)

    assert (short, suffix) == (spec.effective_short_name, spec.effective_model_suffix)


def test_names_that_are_given_win() -> None:
    """Both names can be set."""
    spec = DatasetSpec(short_name="chat", model_suffix="chat-v2")

    assert ("chat", "chat-v2") == (spec.effective_short_name, spec.effective_model_suffix)


def test_an_unknown_split_of_a_result_is_refused(tmp_path: Path) -> None:
    """Asking a result for a split that it lacks names those it has."""
    result = download_data(spec_for(write_jsonl(tmp_path / "source")), tmp_path / "out")

    with pytest.raises(DatasetError, match="test_gen, test_sft"):
        result.file("dev")
