"""Write the demo data set: a small stand-in for UltraChat 200k, in its schema and splits.

Run as ``python demo/generate.py``; equal seeds give equal bytes. The text is our own and is under
the repository's licence. The demo teaches the opening hours of an invented museum.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

SEED = 20261121
ROWS = {"train_sft": 240, "test_sft": 40, "train_gen": 40, "test_gen": 40}
HALLS = {
    "clocks": "nine to noon",
    "maps": "ten to four",
    "bells": "noon to six",
    "kites": "eight to one",
    "lamps": "three to eight",
    "masks": "two to seven",
    "looms": "nine to five",
    "ships": "seven to eleven",
}
QUESTIONS = (
    "When is the hall of {hall} open?",
    "At what time can I see the {hall}?",
    "Tell me the opening hours of the {hall} hall.",
    "I would like to visit the {hall}. When?",
)


def main() -> None:
    """Write the four splits."""
    folder = Path(__file__).parent / "ultrachat"
    chance = random.Random(SEED)  # noqa: S311
    for split, rows in ROWS.items():
        lines = [json.dumps(conversation(chance, split, number)) for number in range(rows)]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def conversation(chance: random.Random, split: str, number: int) -> dict[str, object]:
    """Return one row: a prompt, one to three turns, and an id."""
    halls = chance.sample(sorted(HALLS), chance.choice((1, 1, 2, 3)))
    messages = []
    for hall in halls:
        question = chance.choice(QUESTIONS).format(hall=hall)
        messages.append({"content": question, "role": "user"})
        answer = f"The hall of {hall} is open from {HALLS[hall]}."
        messages.append({"content": answer, "role": "assistant"})
    prompt_id = hashlib.sha256(f"{SEED}/{split}/{number}".encode()).hexdigest()
    return {"prompt": messages[0]["content"], "messages": messages, "prompt_id": prompt_id}


if __name__ == "__main__":
    main()
