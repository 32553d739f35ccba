"""``make bench``: the emulator's trainer beside a plain PyTorch loop and a bare Trainer.

The three train the same adapters on the same encoded rows, in batches of the same size and with the
same optimizer and schedule, in one process and in turn. A figure is optimizer steps per second: the
model is loaded before, and nothing is saved or evaluated. What the emulator adds to a bare Trainer
is reporting: it counts tokens, and gives out a log line and an event for each tenth step.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

# As in the emulator's containers: threads that wait sleep. It is read when torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import transformers
from azureml_emulator.catalog import Catalog
from azureml_emulator.training import encoding, finetune, model_import, parameters, preprocess
from azureml_emulator.training.finetune import Plan
from azureml_emulator.training.parameters import TrainingParameters
from azureml_emulator.training.reporting import Reporter
from azureml_emulator.training.request import BaseModel, Events, Request

from benchmarks.table import print_ratios

ROWS = Path(__file__).resolve().parent.parent / "demo" / "ultrachat" / "train_sft.jsonl"
COMPONENT = "chat_completion_pipeline"
STEPS = {"tiny": 40, "smollm2": 4}
REPEATS = {"tiny": 7, "smollm2": 2}
LOOP, BARE, OURS = "plain PyTorch loop", "transformers.Trainer", "the emulator's step"
GIVEN = {
    "apply_lora": "true",
    "lora_r": "16",
    "lora_alpha": "32",
    "learning_rate": "0.001",
    "per_device_train_batch_size": "8",
    "evaluation_strategy": "disable",
}


@dataclass(frozen=True)
class Bench:
    """What all ways train on.

    Args:
        training: The parameters.
        plan: How training goes.
        info: What the preprocess step said.
        base: The base model's folder.
        data: The encoded rows.
        work: A folder for what the Trainer writes.
    """

    training: TrainingParameters
    plan: Plan
    info: dict[str, Any]
    base: Path
    data: Path
    work: Path


def main() -> None:
    """Measure and print one table."""
    parser = argparse.ArgumentParser(description="Steps per second of the emulator's trainer.")
    parser.add_argument("--model", choices=sorted(STEPS), default="tiny")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="of converted weights")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures")
    chosen = parser.parse_args()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        bench = prepare(Path(folder), chosen.model, chosen.cache.resolve())
        figures = measure(bench, REPEATS[chosen.model])
    show(figures, bench, chosen.model)
    if chosen.json:
        chosen.json.write_text(json.dumps(figures, indent=2), encoding="utf-8")


def prepare(folder: Path, model: str, cache: Path) -> Bench:
    """Do the steps before the training, once."""
    component = next(one for one in Catalog.load("today").components if one["name"] == COMPONENT)
    given = {
        name: str(declared["default"])
        for name, declared in component["inputs"].items()
        if declared.get("default") is not None
    } | GIVEN
    given |= {
        "max_steps": str(STEPS[model]),
        "precision": "16" if model == "smollm2" else "32",
    }
    outputs = {name: folder / name for name in ("model", "data", "work")}
    for output in outputs.values():
        output.mkdir()
    request = Request(
        step="model_import",
        job="bench",
        run_id="bench",
        parameters=given,
        declared={},
        files={"train_file_path": ROWS},
        upstream={"model_selector_output": outputs["model"]},
        model=BaseModel(model, model, "1", model, None, cache),
        outputs={"output_dir": outputs["model"]},
        work=outputs["work"],
        events=folder / "events",
        gpus=1,
        nodes=1,
        size="",
    )
    events = Events(request.events)
    model_import.run(request, events)
    preprocess.run(replace(request, outputs={"output_dir": outputs["data"]}), events)
    training = parameters.read(given)
    info = json.loads((outputs["data"] / preprocess.INFO).read_text(encoding="utf-8"))
    plan = finetune.plan_of(training, info, finetune.device_dtype(training.precision))
    return Bench(training, plan, info, outputs["model"], outputs["data"], outputs["work"])


def measure(bench: Bench, repeats: int) -> dict[str, list[float]]:
    """Return the steps per second of each way, a figure for each of *repeats* rounds."""
    ways: dict[str, Callable[[Bench, Any], None]] = {LOOP: loop, BARE: bare, OURS: ours}
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            transformers.set_seed(bench.training.seed)
            model = finetune.load_model(bench.base, bench.training, bench.plan.dtype)
            begun = time.perf_counter()
            way(bench, model)
            seconds = time.perf_counter() - begun
            figures[name].append(bench.training.max_steps / seconds)
    return figures


def loop(bench: Bench, model: Any) -> None:
    """Train with nothing but PyTorch."""
    training = bench.training
    rows: Any = encoding.load(bench.data, "train")
    batches = torch.utils.data.DataLoader(
        rows,
        batch_size=training.per_device_train_batch_size,
        shuffle=True,
        collate_fn=finetune.collator(bench.info["pad_token_id"], None),
    )
    weights = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=training.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, training.max_steps)
    model.train()
    done = 0
    while done < training.max_steps:
        for batch in batches:
            with torch.autocast("cpu", bench.plan.dtype, bench.plan.dtype != torch.float32):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, training.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            done += 1
            if done == training.max_steps:
                return


def bare(bench: Bench, model: Any) -> None:
    """Train with the Trainer, told no more than it must be."""
    training = bench.training
    rows: Any = encoding.load(bench.data, "train")
    transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=str(bench.work),
            max_steps=training.max_steps,
            per_device_train_batch_size=training.per_device_train_batch_size,
            learning_rate=training.learning_rate,
            bf16=bench.plan.dtype == torch.bfloat16,
            use_cpu=True,
            remove_unused_columns=False,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        data_collator=finetune.collator(bench.info["pad_token_id"], None),
        train_dataset=rows,
    ).train()


def ours(bench: Bench, model: Any) -> None:
    """Train as the emulator's finetune step does."""
    reporter = Reporter(Events(bench.work / "events"))
    trainer = finetune.make_trainer(
        model, bench.training, bench.plan, bench.info, bench.data, bench.work, reporter
    )
    # It saves at each epoch, which the others do not.
    trainer.args.save_strategy = "no"
    trainer.train()


def show(figures: dict[str, list[float]], bench: Bench, model: str) -> None:
    """Print the table."""
    dtype = str(bench.plan.dtype).removeprefix("torch.")
    print_ratios(
        figures,
        title=f"{model}: optimizer steps per second, LoRA, batches of "
        f"{bench.training.per_device_train_batch_size}, {dtype}",
        caption=f"torch {version('torch')}, transformers {version('transformers')}, peft "
        f"{version('peft')}, {torch.get_num_threads()} threads. In parentheses: ratio to the loop.",
        reference=LOOP,
        best_of=max,
        shown=lambda rate: f"{rate:.2f}",
    )


if __name__ == "__main__":
    main()
