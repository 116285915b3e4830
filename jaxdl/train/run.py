"""One run among those that a loop trains: its record, its lines, and what follows from them."""

from collections.abc import Mapping
from typing import Any

from jaxdl.train.record import STOP, RunDirectory, read_metrics
from jaxdl.train.stopping import best_record, evaluations_since_best


class Run:
    """A run in progress.

    Args:
      record: its directory.
      selection: the metric that selects, and whether its "max" or "min" is best; None without a validation split.
      patience: evaluations in a row without a better one after which it ends; None for no such end.
      ended: how it ended before, when it is not to go on.

    Attributes:
      lines: its lines of metrics.jsonl so far.
      ended: why its training is over, "done", "stopped" or "diverged"; None while it goes on.
      error: what to tell of it.
      alarm: what the task found wrong with its training at the last line of metrics, or None.
    """

    def __init__(
        self,
        record: RunDirectory,
        selection: tuple[str, str] | None = None,
        patience: int | None = None,
        ended: str | None = None,
    ):
        self.record, self._selection, self._patience = record, selection, patience
        self.lines: list[Mapping[str, Any]] = []
        self.ended = ended
        self.error: Exception | None = None
        self.alarm: str | None = None

    def rewind(self, step: int) -> None:
        """Goes on from `step`: later lines are cut away."""
        self.record.rewind(step)
        # Another process may not have cut the file yet.
        self.lines = [line for line in read_metrics(self.record.path) if line["step"] <= step]

    def append(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Writes one line of metrics: the scalars among `values`."""
        scalars = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        self.lines.append({"step": step, "split": split, **scalars})
        self.record.metrics(step, split, scalars)

    def evaluated(self, step: int) -> bool:
        """Whether this step was evaluated already."""
        return any(line["step"] == step and line["split"] != "train" for line in reversed(self.lines))

    def best_step(self) -> int | None:
        """The step of the best evaluation so far; None without any that counts."""
        best = None if self._selection is None else best_record(self.lines, *self._selection, "validation")
        return None if best is None else best["step"]

    def end_if_due(self, asked: str | None) -> str | None:
        """Ends the run when it was asked to (`asked` is the reason), or when its patience has ended; says why, once."""
        if self.ended is not None:
            return None
        if asked is not None:
            self.ended = "stopped"
            return f"stopped as asked ({asked}); delete {self.record.path / STOP} to go on"
        if self._patience is None or self._selection is None:
            return None
        waited = evaluations_since_best(self.lines, *self._selection, "validation")
        if waited < self._patience:
            return None
        self.ended = "done"
        return f"stopped early: {self._selection[0]} has not improved for {waited} evaluations"

    def evaluations(self, step: int) -> dict[str, dict[str, Any]]:
        """The metrics of every held-out split at `step`."""
        return {
            line["split"]: {name: value for name, value in line.items() if name not in ("step", "split")}
            for line in self.lines
            if line["step"] == step and line["split"] != "train"
        }
