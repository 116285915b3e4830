"""How a run is asked to stop, and which evaluation was the best."""

import math
import os
import signal
import threading
from collections.abc import Iterable, Mapping
from typing import Any


class Signals:
    """SIGTERM and Ctrl-C ask the loop to save and leave; a second Ctrl-C leaves at once.

    `status` is None until asked: then 75 (SIGTERM: preempted, ask for me again) or 130 (Ctrl-C).
    """

    def __init__(self):
        self.status: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # elsewhere Python refuses; the caller's own stay
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number, frame) -> None:
        if number == signal.SIGINT and self.status == 130:
            os._exit(130)
        self.status = 75 if number == signal.SIGTERM else 130
        if number == signal.SIGINT:
            os.write(2, b"\nStopping: saving a checkpoint. Ctrl-C again leaves at once.\n")


def best_record(records: Iterable[Mapping[str, Any]], metric: str, mode: str, split: str) -> Mapping[str, Any] | None:
    """The best evaluation line of a split, of equal ones that of lower loss, and then the first.

    A metric that is missing or not finite counts for nothing.
    """
    best, best_score = None, None
    for record in records:
        value, loss = record.get(metric), record.get("loss")
        if record["split"] != split or value is None or value != value:
            continue
        score = (value if mode == "max" else -value, -math.inf if loss is None else -loss)
        if best is None or score > best_score:
            best, best_score = record, score
    return best


def evaluations_since_best(records: Iterable[Mapping[str, Any]], metric: str, mode: str, split: str) -> int:
    """How many evaluations of a split in a row, the last ones, have not been better than the best before."""
    records = [record for record in records if record["split"] == split]
    best = best_record(records, metric, mode, split)
    if best is None:
        return len(records)
    return sum(record["step"] > best["step"] for record in records)
