"""What became of a trial, as its run directory tells; read again only where it has changed."""

import json
import os
import pathlib
from typing import Any

from jaxdl.train.record import read_json
from jaxdl.train.stopping import best_record

FINAL = ("done", "diverged", "stopped")
"""States that nothing follows: the run reached its end, its loss was not finite, or it was ended on purpose."""


class TrialState:
    """A trial's run directory, as last seen by `look`.

    Attributes:
      state: of status.json: running, done, failed, preempted, diverged or stopped; "waiting" where nothing is yet.
      step: the last step that is known of; `saved` is the last one that status.json tells, from which a run goes on.
      steps: the length of the run, once it is known.
      error: why it failed, by itself.
      loss: the last one of training.
      best: the best value of the metric on the validation split, without one on the training split.
      change: differs whenever status.json does.
    """

    def __init__(self, path: pathlib.Path, metric: tuple[str, str]):
        self.path, self.metric = path, metric
        self.state, self.step, self.saved, self.steps = "waiting", 0, 0, None
        self.error: str | None = None
        self.loss: float | None = None
        self.change: tuple | None = None
        self._best: dict[str, dict[str, Any]] = {}
        self._file, self._offset = None, 0

    @property
    def best(self) -> float | None:
        record = self._best.get("validation") or self._best.get("train")
        return None if record is None else record[self.metric[0]]

    def look(self) -> list[tuple[int, float]]:
        """Reads what is new; gives the new measurements of the metric on the validation split, by step."""
        change = _change(self.path / "status.json")
        if change is not None and change != self.change:
            status = read_json(self.path / "status.json") or {}
            self.change = change
            self.state = status.get("state") or "waiting"
            self.saved = status.get("step") or 0
            self.step = max(self.step, self.saved) if self.state == "running" else self.saved
            self.steps = status.get("steps", self.steps)
            self.error = status.get("error")
        return [(record["step"], record[self.metric[0]]) for record in self._new_records() if self._measures(record)]

    def _measures(self, record: dict[str, Any]) -> bool:
        return record["split"] == "validation" and record.get(self.metric[0]) is not None

    def _new_records(self) -> list[dict[str, Any]]:
        """The whole lines after those that were read; from the beginning where the file was replaced (a resume)."""
        path = self.path / "metrics.jsonl"
        change = _change(path)
        if change is None or change[1:] == (self._offset, self._file):
            return []
        with open(path, "rb") as lines:
            stat = os.fstat(lines.fileno())  # of what was opened: a resume may have replaced the file meanwhile
            if stat.st_ino != self._file or stat.st_size < self._offset:
                self._file, self._offset, self._best, self.step = stat.st_ino, 0, {}, self.saved
            lines.seek(self._offset)
            data = lines.read()
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        records = [json.loads(line) for line in data.splitlines()]
        for record in records:
            self.step = max(self.step, record["step"])
            if record["split"] == "train":
                self.loss = record.get("loss", self.loss)
        for split in ("train", "validation"):
            known = [self._best[split]] if split in self._best else []
            best = best_record([*known, *records], *self.metric, split)
            if best is not None:
                self._best[split] = best
        return records


def last_error(log: pathlib.Path, start: int) -> str | None:
    """The line of a log that says what went wrong: the last "error: ...", else the last one at all, of a traceback.

    Args:
      start: how long the log was when the job began.
    """
    try:
        with open(log, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(start, size - 20_000))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return None
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return (told or lines or [None])[-1]


def _change(path: pathlib.Path) -> tuple[int, int, int] | None:
    """Time, size and number of a file, which tell whether it has changed; None without one."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
