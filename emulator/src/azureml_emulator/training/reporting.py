"""What training says while it runs: metrics as events, and the same in words to the log."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from transformers import TrainerCallback

from .request import Events, StepFailed

# The loss is a mean over some steps, so a perplexity beyond this says no more than infinity.
_MOST_NATS = 700.0


class Reporter(TrainerCallback):  # type: ignore[misc]
    """Passes on what the Trainer logs.

    Args:
        events: Where metrics go.
    """

    def __init__(self, events: Events) -> None:
        self._events = events
        self._clock = time.monotonic()
        self._tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Begin to count."""
        self._mark(state)

    def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Report a training point.

        Raises:
            StepFailed: The loss is no number any more.
        """
        logs = rest["logs"]
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise StepFailed(
                f"The loss is {logs['loss']} at step {state.global_step}: lower learning_rate, or "
                f"set precision to 32."
            )
        metrics = {
            name: float(logs[name]) for name in ("loss", "grad_norm", "learning_rate", "epoch")
        }
        seconds = time.monotonic() - self._clock
        seen = int(state.num_input_tokens_seen) - self._tokens
        metrics["tokens_per_second"] = round(seen / max(seconds, 1e-9), 1)
        self._report(state, metrics)
        self._mark(state)

    def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Report an evaluation, and leave out the time that it took."""
        loss = float(rest["metrics"]["eval_loss"])
        perplexity = math.exp(min(loss, _MOST_NATS))
        self._report(state, {"eval_loss": loss, "perplexity": perplexity})
        self._mark(state)

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Leave out the time that saving took."""
        self._mark(state)

    def finished(self, state: Any, *, train_loss: float | None, seconds: float) -> None:
        """Report the end.

        Args:
            state: The Trainer's.
            train_loss: The mean over the steps of this process; None if it took none.
            seconds: How long they took.
        """
        metrics = {"total_steps": float(state.global_step)}
        if train_loss is not None:
            metrics |= {"train_loss": train_loss, "train_runtime": round(seconds, 2)}
        self._events.metrics(metrics, step=state.global_step)
        print(f"Training completed. {_json(metrics)}")

    def _report(self, state: Any, metrics: dict[str, float]) -> None:
        self._events.metrics(metrics, step=state.global_step)
        print(f"step {state.global_step}/{state.max_steps} {_json(metrics)}")

    def _mark(self, state: Any) -> None:
        self._clock = time.monotonic()
        self._tokens = int(state.num_input_tokens_seen)


def _json(metrics: dict[str, float]) -> str:
    return json.dumps({name: float(f"{value:.6g}") for name, value in metrics.items()})
