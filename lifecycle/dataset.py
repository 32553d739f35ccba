"""The conversations to train on: from wherever they are, checked, as files on this machine.

What is asked for and what came of it is here; how it is done is in :mod:`lifecycle.conversations`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from lifecycle.aside import attended
from lifecycle.errors import DatasetError
from lifecycle.plain import Result, Spec

if TYPE_CHECKING:
    from lifecycle.clients import WorkspaceRef

Rows = Annotated[int, Field(ge=1)]
Watch = Callable[["Progress"], None]

TOKENS_A_BIN = 64

_SPLIT = r"^\w+([.-]\w+)*$"

# The columns that each shape reads, by our name for them; those marked are optional.
COLUMNS = {
    "messages": {"messages": True, "role": True, "content": True},
    "sharegpt": {"conversations": True, "from": True, "value": True, "system": False},
    "alpaca": {"instruction": True, "input": False, "output": True, "system": False},
    "prompt_response": {"prompt": True, "response": True, "system": False},
}
ROLES = {
    "messages": {"system": "system", "user": "user", "assistant": "assistant"},
    "sharegpt": {"system": "system", "human": "user", "user": "user", "gpt": "assistant"},
    "alpaca": {},
    "prompt_response": {},
}


class DatasetSpec(Spec):
    """Which data set, how much of it, what its rows look like, and what to do with bad ones."""

    path: str = Field(
        default="HuggingFaceH4/ultrachat_200k",
        min_length=1,
        title="Data set",
        description=(
            "Id of a data set on the Hugging Face hub; a folder; an address such as "
            "https://host/{split}.parquet or abfs://container@account.dfs.core.windows.net/folder; "
            "or a data asset of the workspace, azureml:name:version. {split} stands for the name "
            "of each split that the run uses."
        ),
        examples=["HuggingFaceH4/ultrachat_200k", "./data", "azureml:chats:3"],
    )
    config_name: str | None = Field(
        default=None,
        title="Configuration",
        description="Configuration (subset) of the data set, where it has several.",
        examples=["default"],
    )
    revision: str | None = Field(
        default=None,
        title="Revision",
        description="Branch, tag or commit of a data set on the hub; the newest if not given.",
        examples=["main"],
    )
    percentage: float = Field(
        default=5,
        gt=0,
        le=100,
        title="Percentage",
        description="How much of each split to use; at least one row.",
        examples=[5],
    )
    rows: Rows | dict[str, Rows] | None = Field(
        default=None,
        title="Rows",
        description="How many rows of each split, or of those named, instead of the percentage.",
        examples=[1000, {"train_sft": 10000, "test_sft": 500}],
    )
    sampling: Literal["first", "random"] = Field(
        default="first",
        title="Sampling",
        description="The first rows of each split, or rows drawn at random with the seed.",
        examples=["first"],
    )
    seed: int = Field(
        default=0,
        ge=0,
        title="Seed",
        description="Of random sampling: equal seeds draw the same rows.",
        examples=[0],
    )
    train_split: str = Field(
        default="train_sft",
        pattern=_SPLIT,
        title="Training split",
        description="Split to train on.",
        examples=["train_sft"],
    )
    validation_split: str | None = Field(
        default=None,
        pattern=_SPLIT,
        title="Validation split",
        description="Split to validate on; without one the job takes 20 % of the training split.",
        examples=["validation_sft"],
    )
    test_split: str = Field(
        default="test_sft",
        pattern=_SPLIT,
        title="Test split",
        description="Split that the job tests on.",
        examples=["test_sft"],
    )
    generation_split: str | None = Field(
        default="test_gen",
        pattern=_SPLIT,
        title="Generation split",
        description="Split whose rows the endpoint is asked; the test split if not given.",
        examples=["test_gen"],
    )
    shape: Literal["messages", "sharegpt", "alpaca", "prompt_response"] = Field(
        default="messages",
        title="Shape of a row",
        description=(
            "messages: a list of role and content; sharegpt: conversations, a list of from and "
            "value; alpaca: instruction, input and output; prompt_response: prompt and response."
        ),
        examples=["messages"],
    )
    columns: dict[str, str] = Field(
        default_factory=dict,
        title="Columns",
        description="What the data set calls the columns of the shape, where it differs.",
        examples=[{"messages": "dialogue", "role": "speaker", "content": "text"}],
    )
    roles: dict[str, Literal["system", "user", "assistant"]] = Field(
        default_factory=dict,
        title="Roles",
        description="Further names of the roles in the data set.",
        examples=[{"customer": "user", "agent": "assistant"}],
    )
    invalid_rows: Literal["fail", "drop"] = Field(
        default="fail",
        title="Invalid rows",
        description="What a row does that is no usable conversation: end the run, or be left out.",
        examples=["fail"],
    )
    max_dropped_percentage: float = Field(
        default=1,
        ge=0,
        lt=100,
        title="Most rows dropped",
        description="Percentage of a split's rows that may be dropped before it is an error.",
        examples=[1],
    )
    max_tokens: int | None = Field(
        default=None,
        ge=1,
        title="Most tokens",
        description=(
            "A longer conversation is an invalid row. If not given, long ones are kept, and how "
            "many the training parameter max_seq_length will cut is counted."
        ),
        examples=[2048],
    )
    tokenizer: str | None = Field(
        default=None,
        min_length=1,
        title="Tokenizer",
        description=(
            "The model's tokenizer.json: a hub id, or a file or folder. Without one, tokens are "
            "estimated."
        ),
        examples=["microsoft/Phi-4-mini-instruct"],
    )
    file_format: Literal["jsonl", "parquet"] = Field(
        default="jsonl",
        title="File format",
        description="What the files given to the job are written as.",
        examples=["jsonl"],
    )
    short_name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        title="Short name",
        description="The data set's name in the job's display name; from the path if not given.",
        examples=["ultrachat"],
    )
    model_suffix: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][\w.-]*$",
        title="Model suffix",
        description="What is added to the model's name to register it; from the path if not given.",
        examples=["ultrachat-200k"],
    )

    @model_validator(mode="after")
    def _columns_are_of_the_shape(self) -> Self:
        unknown = sorted(set(self.columns) - set(COLUMNS[self.shape]))
        if unknown:
            raise ValueError(
                f"the shape {self.shape} has no column {', '.join(unknown)}; it has "
                f"{', '.join(COLUMNS[self.shape])}."
            )
        return self

    @property
    def effective_short_name(self) -> str:
        """``short_name``, or the path's last part without its size: ``ultrachat``."""
        return self.short_name or re.sub(r"(?i)[-_]\d+[kmb]?$", "", self._stem)

    @property
    def effective_model_suffix(self) -> str:
        """``model_suffix``, or the path's last part with dashes: ``ultrachat-200k``."""
        return self.model_suffix or self._stem.replace("_", "-")

    @property
    def effective_generation_split(self) -> str:
        """``generation_split``, or the test split."""
        return self.generation_split or self.test_split

    @property
    def used_splits(self) -> dict[str, str]:
        """The splits that the run uses, by the parameter that names each."""
        named = {
            "train_split": self.train_split,
            "validation_split": self.validation_split,
            "test_split": self.test_split,
            "generation_split": self.generation_split,
        }
        return {parameter: split for parameter, split in named.items() if split is not None}

    @property
    def learned_splits(self) -> set[str]:
        """The splits that the job is given: rows of theirs need an answer to learn or test."""
        return {
            split
            for parameter, split in self.used_splits.items()
            if parameter != "generation_split"
        }

    @property
    def column_names(self) -> dict[str, str]:
        """The data set's name of each column of the shape."""
        return {name: self.columns.get(name, name) for name in COLUMNS[self.shape]}

    @property
    def role_names(self) -> dict[str, str]:
        """The role that each of the data set's names stands for."""
        return {**ROLES[self.shape], **self.roles}

    @property
    def is_in_azure(self) -> bool:
        """Whether it is read with a workspace, or by who is signed in to Azure."""
        return self.path.startswith(("azureml:", "abfs://", "abfss://", "wasbs://"))

    def rows_of(self, split: str) -> int | None:
        """The number of rows asked for of *split*; None where it is by percentage."""
        return self.rows.get(split) if isinstance(self.rows, dict) else self.rows

    @property
    def _stem(self) -> str:
        path = re.sub(r"\{split\}.*", "", self.path)
        if path.startswith("azureml:") and "://" not in path:
            path = re.split("[:@]", path)[1]
        last = path.rstrip("/").rpartition("/")[-1]
        if last in ("", ".", "..", "~"):
            last = Path(path).expanduser().resolve().name
        return re.sub(r"[^A-Za-z0-9_.-]+", "-", last).strip("-._") or "data"


class TokenLengths(Result):
    """How long the conversations of a split are, in tokens."""

    method: str = Field(
        title="Method",
        description="How they were counted.",
        examples=["estimated at 4 bytes a token"],
    )
    mean: float = Field(ge=0, title="Mean", description="Tokens of a conversation on average.")
    longest: int = Field(ge=0, title="Longest", description="Tokens of the longest one.")
    bins: list[int] = Field(
        title="Histogram",
        description=f"Conversations by length in steps of {TOKENS_A_BIN} tokens; the last is open.",
    )

    def longer_than(self, limit: int) -> int:
        """Count the conversations of more than *limit* tokens; exact at multiples of a step."""
        return sum(self.bins[limit // TOKENS_A_BIN :]) if self.longest > limit else 0


class SplitFile(Result):
    """One split, written as a file."""

    split: str = Field(title="Split", description="Name of the split.", examples=["train_sft"])
    path: str = Field(
        title="File",
        description="Absolute path of the file.",
        examples=["/data/train_sft.jsonl"],
    )
    rows: int = Field(ge=0, title="Rows", description="Number of rows written.", examples=[10393])
    sha256: str = Field(
        pattern=r"^[0-9a-f]{64}$", title="SHA-256", description="Digest of the file, hexadecimal."
    )
    bytes: int = Field(default=0, ge=0, title="Bytes", description="Size of the file.")
    source_rows: int | None = Field(
        default=None, title="Rows of the source", description="Where the source says how many."
    )
    dropped: dict[str, int] = Field(
        default_factory=dict, title="Dropped", description="Rows left out, by what was wrong."
    )
    first_dropped: list[str] = Field(
        default_factory=list, title="First dropped", description="The first of them, told."
    )
    duplicates: int = Field(
        default=0, ge=0, title="Duplicates", description="Rows that were there before, exactly."
    )
    tokens: TokenLengths | None = Field(
        default=None, title="Tokens", description="How long the conversations are."
    )


class DatasetResult(Result):
    """Where the data set came from, and a file for each of its splits."""

    name: str = Field(
        title="Data set",
        description="Hub id, path or address, as asked for.",
        examples=["HuggingFaceH4/ultrachat_200k"],
    )
    revision: str | None = Field(
        title="Revision",
        description="Commit on the hub, or version of the data asset; none for files.",
        examples=["8049631c405ae6576f93f445c6b8166f76f5505a"],
    )
    files: list[SplitFile] = Field(
        title="Files", description="One file for each split of the source, by name."
    )
    leaked: dict[str, int] = Field(
        default_factory=dict,
        title="Leaked",
        description="Rows that are in the training split as well, exactly, by split.",
    )
    left_out: dict[str, str] = Field(
        default_factory=dict,
        title="Left out",
        description="Splits that the run does not use and that hold no conversations, with why.",
    )
    manifest: str | None = Field(
        default=None, title="Manifest", description="File that says what all depends on."
    )
    dropped_rows: str | None = Field(
        default=None,
        title="Dropped rows",
        description="File that lists the rows left out and why, as JSON lines; 10,000 a split.",
    )

    def file(self, split: str) -> SplitFile:
        """Return the file of ``split``.

        Raises:
            DatasetError: There is no such split.
        """
        for found in self.files:
            if found.split == split:
                return found
        raise DatasetError(
            f"{self.name} has no split {split!r}; it has {listed(f.split for f in self.files)}.",
            where="dataset",
        )


@dataclass(frozen=True)
class Progress:
    """How far the work is.

    Args:
        split: Whose rows are written or counted; empty while another run is waited for.
        rows: Rows read so far.
        of_rows: Rows that will be read, at most; 0 where nobody knows.
        bytes: Bytes written so far.
        seconds: Since this was begun.
        doing: What is done.
    """

    split: str
    rows: int
    of_rows: int
    bytes: int
    seconds: float
    doing: Literal["writing", "counting", "waiting"] = "writing"

    @property
    def title(self) -> str:
        """What is done, in a word or two."""
        if self.doing == "waiting":
            return "waiting for another run that prepares the same data"
        return self.split if self.doing == "writing" else f"counting {self.split}"

    def __str__(self) -> str:
        if self.doing == "waiting":
            return f"{self.title}, {self.seconds:.0f} s so far"
        if self.doing == "counting":
            return f"{self.title}: {self.rows:,} rows so far"
        pace = self.rows / max(self.seconds, 1e-3)
        left = (self.of_rows - self.rows) / max(pace, 1e-3)
        return (
            f"{self.split}: {self.rows:,} of {self.of_rows:,} rows, {pace:,.0f} a second, "
            f"{left:.0f} s left"
        )


def download_data(
    spec: DatasetSpec,
    directory: Path,
    *,
    workspace: WorkspaceRef | None = None,
    watch: Watch | None = None,
    go_on: Callable[[], None] | None = None,
) -> DatasetResult:
    """Write what is asked for of every split as a file of checked conversations.

    Equal inputs give equal bytes, in a folder of their own below ``directory`` which is used again
    as long as its digests are right. It appears whole or not at all. The work is done in a thread
    of its own, so that a signal ends it at once, however slowly the source answers.

    Args:
        spec: What to read, and how.
        directory: Where to write; made if it is not there.
        workspace: Needed for its data assets, and to sign in to its storage.
        watch: Told how far it is, about five times a second; what it raises ends the work.
        go_on: Called about five times a second, also while the source is silent; what it raises
            ends the work.

    Returns:
        A file for each split of the source, and the revision that it had.

    Raises:
        DatasetError: The source is not there, cannot be read or reached, lacks a split or column
            that the run uses, has more bad rows than allowed, or the disk has no room.
    """
    from lifecycle.conversations.build import prepare

    return attended(
        lambda tell: prepare(spec, directory, workspace=workspace, watch=tell),
        watch=watch,
        go_on=go_on,
    )


def data_directory() -> Path:
    """Return where data sets are kept: in ``FINETUNE_CACHE``, else in the user's cache folder."""
    named = os.environ.get("FINETUNE_CACHE")
    if named:
        return Path(named) / "datasets"
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "azureml-finetune-flows" / "datasets"


def listed(names: Iterable[str]) -> str:
    """Return *names* in order, for a sentence."""
    return ", ".join(sorted(names)) or "none"
