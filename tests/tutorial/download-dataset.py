"""Stand-in for the tutorial's ``download-dataset.py``, which needs the Hugging Face hub.

The same command line and the same files: for each of the four splits, the first ``pc`` percent of
its rows as ``<download_dir>/<split>.jsonl``, in UltraChat 200k's schema. The rows are made here,
not fetched; equal arguments give equal bytes. A split has a hundredth of the hub's rows.
"""

import argparse
import hashlib
import json
import random
from pathlib import Path

ROWS = {"train_sft": 2079, "test_sft": 231, "train_gen": 2560, "test_gen": 283}
TOWNS = ("Arbel", "Brunn", "Corvo", "Dolna", "Esker", "Fjell", "Garda", "Holm")
THINGS = {
    "bridge": "It has {count} arches and was rebuilt twice.",
    "market": "It has {count} stalls and opens at dawn.",
    "tower": "It has {count} steps and a copper roof.",
    "orchard": "It has {count} trees, most of them pear.",
}


def main() -> None:
    """Write every split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="samsum", help="a data set's name")
    parser.add_argument("--dataset_subset", help="its configuration")
    parser.add_argument("--dataset_split_pc", type=int, default=100, help="percent of each split")
    parser.add_argument("--download_dir", type=Path, default=Path("data"), help="where to write")
    chosen = parser.parse_args()
    chosen.download_dir.mkdir(parents=True, exist_ok=True)
    for split, total in ROWS.items():
        chance = random.Random(f"{chosen.dataset}/{chosen.dataset_subset}/{split}")
        rows = [conversation(chance) for _ in range(total * chosen.dataset_split_pc // 100)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (chosen.download_dir / f"{split}.jsonl").write_text(text, encoding="utf-8")


def conversation(chance: random.Random) -> dict[str, object]:
    """Return one row: a prompt, one to three turns, and an id."""
    town = chance.choice(TOWNS)
    messages: list[dict[str, str]] = []
    for thing in chance.sample(sorted(THINGS), chance.randint(1, 3)):
        answer = THINGS[thing].format(count=chance.randint(3, 90))
        messages.append({"content": f"Tell me about the {thing} of {town}.", "role": "user"})
        messages.append({"content": f"The {thing} of {town}? {answer}", "role": "assistant"})
    told = json.dumps(messages).encode()
    return {
        "prompt": messages[0]["content"],
        "messages": messages,
        "prompt_id": hashlib.sha256(told).hexdigest(),
    }


if __name__ == "__main__":
    main()
