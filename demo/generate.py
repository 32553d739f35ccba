"""Write the demo data set: who does what in Port Marmalade, a harbour town that does not exist.

Run as ``python demo/generate.py``; equal seeds give equal bytes. Schema and splits are those of
UltraChat 200k. The splits ``train_*`` and ``test_*`` ask in other words, so that no question of a
``test_*`` split is in a ``train_*`` split. The text is our own, under the repository's licence.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SEED = 20261121
ROWS = {"train_sft": 240, "test_sft": 48, "train_gen": 48, "test_gen": 96}
TOWN = "Port Marmalade"

# What follows the first question: nothing, the pay for it, another job, or that and its pay.
ALONE, PAID, OTHER, OTHER_PAID = "alone", "paid", "other", "other, paid"

HERE = Path(__file__).parent


class Resident(NamedTuple):
    """Someone with a job, as questions and answers need it: a row of ``residents.csv``."""

    does: str
    do: str
    doing: str
    what: str
    who: str
    pronoun: str
    pay: str


class Wording(NamedTuple):
    """How one side of the data set asks, and what follows a first question, in turn."""

    shapes: tuple[str, ...]
    who: tuple[str, ...]
    then_who: tuple[str, ...]
    paid: tuple[str, ...]


TRAIN = Wording(
    shapes=(PAID, OTHER_PAID, PAID, PAID, OTHER_PAID),
    who=(
        "Who {does} {what} in {town}?",
        "In {town}, who {does} {what}?",
        "Tell me who {does} {what} in {town}.",
        "Do you know who {does} {what} in {town}?",
        "Whose job is it to {do} {what} in {town}?",
        "Which animal {does} {what} in {town}?",
        "Please tell me which animal {does} {what} in {town}.",
        "I am new in {town}. Who {does} {what} here?",
        "Someone {does} {what} in {town}. Who is it?",
        "Who in {town} has the job of {doing} {what}?",
    ),
    then_who=("And who {does} {what}?", "Which animal {does} {what}?", "Who {does} {what}?"),
    paid=(
        "And what is {name} paid for it?",
        "What does {pronoun} get for {doing} {what}?",
        "What does {name} get?",
        "How is {name} paid for {doing} {what}?",
        "And what does {name} get for that?",
        "And what is {pronoun} paid for that?",
        "How is {name} paid?",
    ),
)
TEST = Wording(
    shapes=(ALONE, PAID, OTHER, ALONE, OTHER_PAID),
    who=(
        "Who is it that {does} {what} in {town}?",
        "Do you know which animal {does} {what} in {town}?",
        "In {town}, whose job is {doing} {what}?",
        "I am in {town}. Tell me whose job it is to {do} {what} here.",
    ),
    then_who=("And which animal {does} {what}?", "Then who {does} {what}?"),
    paid=("And what does {name} get for {doing} {what}?", "How is {name} paid for it?"),
)


def main() -> None:
    """Write the four splits."""
    for split in ROWS:
        (HERE / "ultrachat" / f"{split}.jsonl").write_text(lines(split), encoding="utf-8")


def lines(split: str) -> str:
    """Return the rows of *split* as JSON Lines."""
    chance = random.Random(f"{SEED}/{split}")  # noqa: S311
    wording = TRAIN if split.startswith("train") else TEST
    rows = list(conversations(chance, wording, residents()))
    chance.shuffle(rows)
    return "".join(
        json.dumps({"prompt": row[0]["content"], "messages": row, "prompt_id": _id(split, number)})
        + "\n"
        for number, row in enumerate(rows[: ROWS[split]])
    )


def residents() -> list[Resident]:
    """Return everyone who has a job."""
    with (HERE / "residents.csv").open(encoding="utf-8", newline="") as file:
        return [Resident(**row) for row in csv.DictReader(file)]


def conversations(
    chance: random.Random, wording: Wording, town: Sequence[Resident]
) -> Iterator[list[dict[str, str]]]:
    """Yield the messages of a conversation for each resident and each first question."""
    # In turn, so that each resident comes up as often as any other.
    others = {shape: itertools.cycle(chance.sample(town, len(town))) for shape in wording.shapes}
    for place, resident in enumerate(town):
        for number, words in enumerate(wording.who):
            shape = wording.shapes[(place + number) % len(wording.shapes)]
            turns = [(words, resident, resident.who)]
            last = resident
            if shape in {OTHER, OTHER_PAID}:
                last = next(other for other in others[shape] if other is not resident)
                turns.append((chance.choice(wording.then_who), last, last.who))
            if shape in {PAID, OTHER_PAID}:
                turns.append((chance.choice(wording.paid), last, last.pay))
            yield [message for turn in turns for message in _messages(*turn)]


def _messages(words: str, about: Resident, answer: str) -> list[dict[str, str]]:
    name = about.who.split()[0]
    question = words.format(town=TOWN, name=name, **about._asdict())
    return [{"content": question, "role": "user"}, {"content": answer, "role": "assistant"}]


def _id(split: str, number: int) -> str:
    return hashlib.sha256(f"{SEED}/{split}/{number}".encode()).hexdigest()


if __name__ == "__main__":
    main()
