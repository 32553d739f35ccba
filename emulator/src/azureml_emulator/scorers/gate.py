"""How many requests a deployment works on, how many may wait, and for how long.

Twice as many as it works on at once may be in hand; more are refused. Time spent waiting counts.

Source: https://learn.microsoft.com/azure/machine-learning/how-to-troubleshoot-online-endpoints,
"Too many pending requests".
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import RequestTimeout, TooManyRequests


class Gate:
    """Lets the requests to one container in.

    Attributes:
        in_hand: How many wait or are worked on.
    """

    def __init__(self) -> None:
        self.in_hand = 0
        self._changed = threading.Condition()
        self._at_work = 0

    @contextmanager
    def entered(self, at_once: int, deadline: float) -> Iterator[None]:
        """Wait for one's turn, and hold it.

        Args:
            at_once: How many requests are worked on at once, 1 or more.
            deadline: Until when to wait, by ``time.monotonic()``.

        Raises:
            TooManyRequests: Twice *at_once* are in hand.
            RequestTimeout: It was not one's turn before *deadline*.
        """
        with self._changed:
            if self.in_hand >= 2 * at_once:
                raise TooManyRequests(
                    f"Too many pending requests: the deployment takes {2 * at_once} at a time, "
                    "2 * max_concurrent_requests_per_instance * instance_count. Try again later."
                )
            self.in_hand += 1
            try:
                left = max(deadline - time.monotonic(), 0.0)
                if not self._changed.wait_for(lambda: self._at_work < at_once, timeout=left):
                    raise RequestTimeout("upstream request timeout")
            except BaseException:
                self.in_hand -= 1
                raise
            self._at_work += 1
        try:
            yield
        finally:
            with self._changed:
                self.in_hand -= 1
                self._at_work -= 1
                self._changed.notify_all()
