"""How far training has come, as the lines of the job's log tell it."""

from __future__ import annotations

import itertools
import math
import re
from collections import deque
from datetime import datetime

# "step 12/60 {…}" is what our trainer writes, "20%|██ | 12/60 [00:31<02:04, 2.6s/it]" what
# Hugging Face's does. Its reports are Python's or JSON's: {'loss': 0.71, …}, {"loss": "0.71", …}.
_STEP = re.compile(r"\bstep (\d{1,9})/(\d{1,9})\b|\b(\d{1,9})/(\d{1,9}) \[\d+:\d+")
_LOSS = re.compile(r"""["'](?P<name>eval_loss|loss)["']: ["']?(?P<value>[-+.\deE]+)""")

# The rate is that of the latest looks: what was logged before somebody looked came all at once.
_LOOKS = 20
_ONE_LOOK_SECONDS = 1.0


class TrainingPulse:
    """Reads a job's lines one by one, and keeps what they say of its progress."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0
        self.losses: list[float] = []
        self.curve: list[tuple[int, float]] = []
        self.eval_loss: float | None = None
        self._seen: deque[tuple[datetime, int]] = deque(maxlen=_LOOKS)

    def read(self, line: str, now: datetime) -> None:
        """Take one line of the log.

        Args:
            line: Its text.
            now: When it was seen.
        """
        if found := _STEP.search(line):
            done, total = (int(number) for number in found.groups() if number is not None)
            if total != self.total or done < self.done:
                # Another bar, such as that of the evaluation, or training anew from a checkpoint.
                self._seen.clear()
            self.done, self.total = done, total
            # Lines that are read in one look say nothing of how long their steps took.
            if self._seen and (now - self._seen[-1][0]).total_seconds() < _ONE_LOOK_SECONDS:
                now = self._seen.pop()[0]
            self._seen.append((now, done))
        for report in _LOSS.finditer(line):
            value = _number(report["value"])
            if value is not None and report["name"] == "loss":
                self.losses.append(value)
                self.curve.append((self.done, value))
            elif value is not None:
                self.eval_loss = value

    def seconds_left(self, now: datetime) -> float | None:
        """Guess how long the steps that are left will take; None as long as nothing is known."""
        if not self._seen:
            return None
        (began, at), (latest, _) = self._seen[0], self._seen[-1]
        spent, steps = (latest - began).total_seconds(), self.done - at
        if steps <= 0 or spent <= 0:
            return None
        left = (self.total - self.done) * spent / steps
        return max(0.0, left - (now - latest).total_seconds())


def sparkline(values: list[float], width: int) -> str:
    """Draw values as a row of blocks, at most *width* of them; empty for fewer than two values.

    Each block is the mean of the values that it stands for; what is not finite is left out.
    """
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return ""
    count = min(width, len(finite))
    edges = [round(number * len(finite) / count) for number in range(count + 1)]
    groups = [finite[low:high] for low, high in itertools.pairwise(edges)]
    means = [sum(group) / len(group) for group in groups]
    low, high = min(means), max(means)
    blocks = "▁▂▃▄▅▆▇█"
    if high == low:
        return blocks[0] * count
    return "".join(blocks[round((mean - low) / (high - low) * 7)] for mean in means)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
